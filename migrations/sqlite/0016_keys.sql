-- Keys. A row is never deleted: what was revoked stays as a record, and with the first API key the server has closed for good.
-- `verifier` is the digest of the digest of the key's secret; `role` says nothing of an event key (`kind` 0); `modules` is a
-- list with commas between, null for all.
CREATE TABLE access_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    kind       INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    role       INTEGER NOT NULL,
    modules    TEXT,
    payloads   INTEGER NOT NULL,
    verifier   BLOB    NOT NULL,
    created_ms INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    expires_ms INTEGER,
    revoked_ms INTEGER
) STRICT, WITHOUT ROWID;
-- Who asked for what, and what came of it. Rows are added and never changed.
CREATE TABLE audit (
    id      BLOB    NOT NULL PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    key_id  TEXT,
    who     TEXT    NOT NULL,
    address TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    target  TEXT    NOT NULL,
    result  TEXT    NOT NULL,
    detail  TEXT
) STRICT, WITHOUT ROWID;
