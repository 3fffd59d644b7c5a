-- What a function's limits remember: one row for each limit and value of its key. `gate` says which limit. `used_until_us` is
-- in microseconds; once it is past, the row says nothing. `run_id` is the last run that was let pass.
CREATE TABLE limits (
    function_id   INTEGER NOT NULL,
    gate          INTEGER NOT NULL,
    key           TEXT    NOT NULL,
    used_until_us INTEGER NOT NULL,
    run_id        BLOB    NOT NULL,
    PRIMARY KEY (function_id, gate, key)
) STRICT, WITHOUT ROWID;
-- For sweeping out what says nothing any more.
CREATE INDEX limits_by_age ON limits (used_until_us);

-- Why an event has started no run of its own of a function that it matches. Deleted with the event.
CREATE TABLE decisions (
    event_id    BLOB    NOT NULL,
    function_id INTEGER NOT NULL,
    decision    INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    run_id      BLOB,
    detail      TEXT    NOT NULL,
    PRIMARY KEY (event_id, function_id)
) STRICT, WITHOUT ROWID;
