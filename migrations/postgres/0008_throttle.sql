-- Runs that a throttle holds back, with what it says. `turn_ms`: the run is in line, and this is its turn, when its timer is
-- due; null: it waits for something else first and takes a turn then. Deleted when the run begins, or with it.
CREATE TABLE throttled (
    run_id      uuid   NOT NULL PRIMARY KEY,
    function_id bigint NOT NULL,
    key         text   NOT NULL,
    rate_limit  bigint NOT NULL,
    period_ms   bigint NOT NULL,
    burst       bigint NOT NULL,
    turn_ms     bigint
);
-- Each throttle's line.
CREATE INDEX throttled_lines ON throttled (function_id, key, turn_ms, run_id) WHERE turn_ms IS NOT NULL;
