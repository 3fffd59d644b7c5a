-- Cancellations of many runs: of the function's runs with ids greater than `cursor_id`, up to which all are examined, and less
-- than `until_id`. `condition` is CEL over their events. Kept as a record once they are done.
CREATE TABLE cancellations (
    id                BLOB NOT NULL PRIMARY KEY,
    function_id       INTEGER NOT NULL,
    started_after_ms  INTEGER,
    started_before_ms INTEGER,
    condition         TEXT,
    created_ms        INTEGER NOT NULL,
    done_ms           INTEGER,
    cursor_id         BLOB NOT NULL,
    until_id          BLOB NOT NULL,
    cancelled         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- For finding what is left to do. Empty mostly.
CREATE INDEX cancellations_open ON cancellations (id) WHERE done_ms IS NULL;
