-- In `waits`, kind 4 is for events that cancel the run: as kind 1, but not after `until_ms`. Kind 5 is for times at which the
-- run may be over: `name` is `start` or `finish`, `path` how many milliseconds that is, and `until_ms` when it is looked at.
-- Both stand there from the run's creation to its end, under operations that no journal has.
ALTER TABLE waits ADD COLUMN until_ms INTEGER;
-- For finding what is due. Empty while no function has timeouts.
CREATE INDEX waits_due ON waits (until_ms, run_id) WHERE kind = 5;
