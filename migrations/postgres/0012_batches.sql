-- The events of runs that start with several: in order, with the bytes of all up to each. Deleted with the run.
CREATE TABLE batched (
    run_id   uuid   NOT NULL,
    position bigint NOT NULL,
    event_id uuid   NOT NULL,
    bytes    bigint NOT NULL,
    PRIMARY KEY (run_id, position)
);
-- The runs of an event.
CREATE INDEX batched_events ON batched (event_id, run_id);
