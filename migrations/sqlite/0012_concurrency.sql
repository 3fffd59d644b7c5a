-- Whether a run needs slots while it executes: it has rows in `slots` until it ends.
ALTER TABLE runs ADD COLUMN needs_slots INTEGER NOT NULL DEFAULT 0;

-- What runs need while they execute: a row for each of a run's concurrency limits, by their place in the definition. Runs with
-- the same `scope` (the function's number; 0: all functions) and `key` share slots. `source` is the key's expression,
-- `slot_limit` what the run's own version says; what the active one says counts. `epoch`: the lease under which the run holds
-- its slots. `since_ms`: it waits in this line, and since when.
CREATE TABLE slots (
    run_id      BLOB    NOT NULL,
    number      INTEGER NOT NULL,
    function_id INTEGER NOT NULL,
    scope       INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    source      TEXT,
    slot_limit  INTEGER NOT NULL,
    since_ms    INTEGER,
    epoch       INTEGER,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;
-- For counting what is taken.
CREATE INDEX slots_taken ON slots (scope, key) WHERE epoch IS NOT NULL;
-- Each line. Functions that share slots may have different limits, so each has a line of its own.
CREATE INDEX slots_lines ON slots (scope, key, function_id, since_ms, run_id) WHERE since_ms IS NOT NULL;

-- Slots that a lease has given back, until somebody has looked who may go now.
CREATE TABLE slots_freed (
    scope  INTEGER NOT NULL,
    key    TEXT    NOT NULL,
    run_id BLOB    NOT NULL,
    epoch  INTEGER NOT NULL,
    PRIMARY KEY (scope, key, run_id, epoch)
) STRICT, WITHOUT ROWID;
