-- What becomes of runs in flight of a module's other versions: 0 they stay on them, 1 they go over to the active one.
ALTER TABLE modules ADD COLUMN policy bigint NOT NULL DEFAULT 0;
-- Whether there are rows of `swaps`: 1 it has gone over to another version, 2 it could not, 3 both.
ALTER TABLE runs ADD COLUMN swapped bigint NOT NULL DEFAULT 0;
-- The versions that runs went over to, each with the number of the first entry that it wrote; and with an error, those that
-- they could not go over to. Deleted with the run.
CREATE TABLE swaps (
    run_id  uuid   NOT NULL,
    seq     bigint NOT NULL,
    at_ms   bigint NOT NULL,
    to_id   bigint NOT NULL,
    from_id bigint NOT NULL,
    error   text,
    PRIMARY KEY (run_id, seq, at_ms, to_id)
);
