-- Where the crons of active functions stand: a row for each, by function and expression. `next_ms` is the next tick. Then the
-- last tick that has started a run, and that run; and the last one that has started none, when that was decided, and why.
CREATE TABLE schedules (
    function_id  INTEGER NOT NULL,
    cron         TEXT    NOT NULL,
    next_ms      INTEGER NOT NULL,
    last_ms      INTEGER,
    last_run_id  BLOB,
    skipped_ms   INTEGER,
    decided_ms   INTEGER,
    reason       TEXT,
    PRIMARY KEY (function_id, cron)
) STRICT, WITHOUT ROWID;
