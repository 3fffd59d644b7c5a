-- What the function writes into: a row for each run.
CREATE TABLE workflow (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL
) STRICT;
