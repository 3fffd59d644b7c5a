-- Where the crons of active functions stand: a row for each, by function and expression. `next_ms` is the next tick. Then the
-- last tick that has started a run, and that run; and the last one that has started none, when that was decided, and why.
CREATE TABLE schedules (
    function_id bigint NOT NULL,
    cron        text   NOT NULL,
    next_ms     bigint NOT NULL,
    last_ms     bigint,
    last_run_id uuid,
    skipped_ms  bigint,
    decided_ms  bigint,
    reason      text,
    PRIMARY KEY (function_id, cron)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
