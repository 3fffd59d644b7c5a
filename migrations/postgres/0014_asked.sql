-- The version that a person wants this run on, whatever is active. Null: it goes by its module's policy.
ALTER TABLE runs ADD COLUMN asked_id bigint;
-- For knowing that a version is still needed. Empty where nobody asks.
CREATE INDEX runs_by_asked ON runs (asked_id) WHERE asked_id IS NOT NULL;
-- Whether the run began again on the version: what it had recorded before is gone.
ALTER TABLE swaps ADD COLUMN restarted boolean NOT NULL DEFAULT false;
