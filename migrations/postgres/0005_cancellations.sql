-- Cancellations of many runs: of the function's runs with ids greater than `cursor_id`, up to which all are examined, and less
-- than `until_id`. `condition` is CEL over their events. Kept as a record once they are done.
CREATE TABLE cancellations (
    id                uuid NOT NULL PRIMARY KEY,
    function_id       bigint NOT NULL,
    started_after_ms  bigint,
    started_before_ms bigint,
    condition         text,
    created_ms        bigint NOT NULL,
    done_ms           bigint,
    cursor_id         uuid NOT NULL,
    until_id          uuid NOT NULL,
    cancelled         bigint NOT NULL
);
-- For finding what is left to do. Empty mostly.
CREATE INDEX cancellations_open ON cancellations (id) WHERE done_ms IS NULL;
