-- Keys. A row is never deleted: what was revoked stays as a record, and with the first API key the server has closed for good.
-- `verifier` is the digest of the digest of the key's secret; `role` says nothing of an event key (`kind` 0); `modules` is a
-- list with commas between, null for all.
CREATE TABLE access_keys (
    id         text    NOT NULL PRIMARY KEY,
    kind       bigint  NOT NULL,
    name       text    NOT NULL,
    role       bigint  NOT NULL,
    modules    text,
    payloads   boolean NOT NULL,
    verifier   bytea   NOT NULL,
    created_ms bigint  NOT NULL,
    created_by text    NOT NULL,
    expires_ms bigint,
    revoked_ms bigint
);
-- Who asked for what, and what came of it. Rows are added and never changed.
CREATE TABLE audit (
    id      uuid   NOT NULL PRIMARY KEY,
    at_ms   bigint NOT NULL,
    key_id  text,
    who     text   NOT NULL,
    address text   NOT NULL,
    action  text   NOT NULL,
    target  text   NOT NULL,
    result  text   NOT NULL,
    detail  text
);
