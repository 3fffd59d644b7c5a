-- Since when a function is paused; null: it is not.
ALTER TABLE functions ADD COLUMN paused_ms bigint;
-- Who holds a run. 0: nobody. 1: a person has asked for it, and its node has not recorded an entry since. 2: a person: it is
-- paused. 3: its function's pause: it is paused and was never begun.
ALTER TABLE runs ADD COLUMN hold smallint NOT NULL DEFAULT 0;
-- For letting on what a function's pause held. Empty while no function is paused.
CREATE INDEX runs_held ON runs (function_id, id) WHERE hold = 3;
