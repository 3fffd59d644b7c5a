-- Runs that a throttle holds back, with what it says. `turn_ms`: the run is in line, and this is its turn, when its timer is
-- due; null: it waits for something else first and takes a turn then. Deleted when the run begins, or with it.
CREATE TABLE throttled (
    run_id      BLOB    NOT NULL PRIMARY KEY,
    function_id INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    rate_limit  INTEGER NOT NULL,
    period_ms   INTEGER NOT NULL,
    burst       INTEGER NOT NULL,
    turn_ms     INTEGER
) STRICT, WITHOUT ROWID;
-- Each throttle's line.
CREATE INDEX throttled_lines ON throttled (function_id, key, turn_ms, run_id) WHERE turn_ms IS NOT NULL;
