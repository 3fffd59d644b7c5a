-- Runs that a throttle holds back, with what it says. `turn`: the run has its turn when its timer is due; otherwise it takes
-- one then. Deleted when the run begins, or with it.
CREATE TABLE throttled (
    run_id      BLOB    NOT NULL PRIMARY KEY,
    function_id INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    rate_limit  INTEGER NOT NULL,
    period_ms   INTEGER NOT NULL,
    burst       INTEGER NOT NULL,
    turn        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
