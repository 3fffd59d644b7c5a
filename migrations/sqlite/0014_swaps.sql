-- What becomes of runs in flight of a module's other versions: 0 they stay on them, 1 they go over to the active one.
ALTER TABLE modules ADD COLUMN policy INTEGER NOT NULL DEFAULT 0;
-- Whether there are rows of `swaps`: 1 it has gone over to another version, 2 it could not, 3 both.
ALTER TABLE runs ADD COLUMN swapped INTEGER NOT NULL DEFAULT 0;
-- The versions that runs went over to, each with the number of the first entry that it wrote; and with an error, those that
-- they could not go over to. Deleted with the run.
CREATE TABLE swaps (
    run_id  BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    to_id   INTEGER NOT NULL,
    from_id INTEGER NOT NULL,
    error   TEXT,
    PRIMARY KEY (run_id, seq, at_ms, to_id)
) STRICT, WITHOUT ROWID;
