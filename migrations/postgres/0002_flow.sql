-- What a function's limits remember: one row for each limit and value of its key, locked by whoever decides on it. `gate`
-- says which limit. `used_until_us` is in microseconds; once it is past, the row says nothing. `run_id` is the last run that
-- was let pass.
CREATE TABLE limits (
    function_id   bigint NOT NULL,
    gate          bigint NOT NULL,
    key           text   NOT NULL,
    used_until_us bigint NOT NULL,
    run_id        uuid   NOT NULL,
    PRIMARY KEY (function_id, gate, key)
);
-- For sweeping out what says nothing any more.
CREATE INDEX limits_by_age ON limits (used_until_us);

-- Why an event has started no run of its own of a function that it matches. Deleted with the event.
CREATE TABLE decisions (
    event_id    uuid   NOT NULL,
    function_id bigint NOT NULL,
    decision    bigint NOT NULL,
    at_ms       bigint NOT NULL,
    run_id      uuid,
    detail      text   NOT NULL,
    PRIMARY KEY (event_id, function_id)
);
