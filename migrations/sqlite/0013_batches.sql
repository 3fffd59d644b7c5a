-- The events of runs that start with several: in order, with the bytes of all up to each. Deleted with the run.
CREATE TABLE batched (
    run_id   BLOB    NOT NULL,
    position INTEGER NOT NULL,
    event_id BLOB    NOT NULL,
    bytes    INTEGER NOT NULL,
    PRIMARY KEY (run_id, position)
) STRICT, WITHOUT ROWID;
-- The runs of an event.
CREATE INDEX batched_events ON batched (event_id, run_id);
