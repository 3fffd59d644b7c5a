-- Which events of ends of runs somebody listens to: 1 `dormouse/function.finished`, 2 `…failed`, 4 `…cancelled`, added. Of
-- a version: its functions. In the registry: `listened`, those of all versions that are not deleted, and `awaited`, those that
-- steps have ever waited for.
ALTER TABLE versions ADD COLUMN listens bigint NOT NULL DEFAULT 0;
ALTER TABLE registry ADD COLUMN listened bigint NOT NULL DEFAULT 0;
ALTER TABLE registry ADD COLUMN awaited bigint NOT NULL DEFAULT 0;
-- Ends of runs that are yet to be told, and by which of these events: a row is added in the commit of the end, and taken
-- away in the commit that stores the events. Empty while nobody listens.
CREATE TABLE ends (
    run_id uuid   NOT NULL PRIMARY KEY,
    kinds  bigint NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
