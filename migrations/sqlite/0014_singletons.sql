-- Among `limits`, gate 13 is for functions of which one run is there at a time: the last run of each key. It says something as long
-- as that run has not ended, and goes with it.
CREATE INDEX limits_of_runs ON limits (run_id) WHERE gate = 13;
