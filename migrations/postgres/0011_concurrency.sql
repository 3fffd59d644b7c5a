-- Whether a run needs slots while it executes: it has rows in `slots` until it ends.
ALTER TABLE runs ADD COLUMN needs_slots boolean NOT NULL DEFAULT false;

-- What runs need while they execute: a row for each of a run's concurrency limits, by their place in the definition. Runs with
-- the same `scope` (the function's number; 0: all functions) and `key` share slots. `source` is the key's expression,
-- `slot_limit` what the run's own version says; what the active one says counts. `epoch`: the lease under which the run holds
-- its slots; a row whose lease is over holds none, whoever has ended it. `since_ms`: it waits in this line, and since when.
CREATE TABLE slots (
    run_id      uuid     NOT NULL,
    number      smallint NOT NULL,
    function_id bigint   NOT NULL,
    scope       bigint   NOT NULL,
    key         text     NOT NULL,
    source      text,
    slot_limit  bigint   NOT NULL,
    since_ms    bigint,
    epoch       bigint,
    PRIMARY KEY (run_id, number)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- For counting what is taken.
CREATE INDEX slots_taken ON slots (scope, key) WHERE epoch IS NOT NULL;
-- Each line. Functions that share slots may have different limits, so each has a line of its own.
CREATE INDEX slots_lines ON slots (scope, key, function_id, since_ms, run_id) WHERE since_ms IS NOT NULL;

-- Slots that a lease has given back, until somebody has looked who may go now. Rows are added by whoever ends a lease, without
-- waiting for anybody, and deleted by who holds the lock of the slots: what comes meanwhile stays.
CREATE TABLE slots_freed (
    scope  bigint NOT NULL,
    key    text   NOT NULL,
    run_id uuid   NOT NULL,
    epoch  bigint NOT NULL,
    PRIMARY KEY (scope, key, run_id, epoch)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
