-- Functions that are invoked by runs. `parent_id` is the run whose step has created this one; `depth` says how many
-- invokes lead to it.
ALTER TABLE runs ADD COLUMN parent_id BLOB;
ALTER TABLE runs ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
-- For the list of the runs that a run has created.
CREATE INDEX runs_by_parent ON runs (parent_id) WHERE parent_id IS NOT NULL;

-- In `waits`, kind 3 is for another run's end: `name` is that run's id, `path` is `cancel` or `abandon`.
-- Runs that their caller has given up and that are to be cancelled: added in the commit that gives them up, taken away in
-- the commit that cancels them. Nearly always empty.
CREATE TABLE orphans (
    run_id BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
