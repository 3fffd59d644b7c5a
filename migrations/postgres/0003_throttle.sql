-- Runs that a throttle holds back, with what it says. `turn`: the run has its turn when its timer is due; otherwise it takes
-- one then. Deleted when the run begins, or with it.
CREATE TABLE throttled (
    run_id      uuid    NOT NULL PRIMARY KEY,
    function_id bigint  NOT NULL,
    key         text    NOT NULL,
    rate_limit  bigint  NOT NULL,
    period_ms   bigint  NOT NULL,
    burst       bigint  NOT NULL,
    turn        boolean NOT NULL
);
