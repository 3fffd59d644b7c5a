-- The schema of Dormouse on SQLite. It is written so that Postgres can mirror it table by table: BLOB(16) is uuid,
-- BLOB is bytea, INTEGER is bigint, TEXT is text. Times are Unix milliseconds and end in _ms.
--
-- Ids of runs and events are ULIDs, so rows land at the end of their tables: with random keys SQLite writes a page
-- per row. Absent on purpose: foreign keys, triggers, counters, updated_at. Every index says what it is for.

-- Processes that live. A run whose owner is not here is taken over.
CREATE TABLE nodes (
    incarnation  BLOB    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    release      TEXT    NOT NULL,
    joined_ms    INTEGER NOT NULL,
    heartbeat_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: a number that moves with every change to modules, so that nothing is decided on what was true before.
CREATE TABLE registry (
    one        INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO registry (one, generation) VALUES (1, 1);

-- Versions of modules. Runs name them by id; a deleted one keeps its row, because ended runs still name it.
CREATE TABLE versions (
    id          INTEGER NOT NULL PRIMARY KEY,
    module      TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    manifest    TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    uploaded_by TEXT    NOT NULL,
    message     TEXT,
    uploaded_ms INTEGER NOT NULL,
    deleted     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (module, digest)
) STRICT;

-- The active version of each module: activation is one row.
CREATE TABLE modules (
    module       TEXT    NOT NULL PRIMARY KEY,
    version_id   INTEGER NOT NULL,
    activated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Functions that have ever had a run, so that a run names its function by a small number.
CREATE TABLE functions (
    id       INTEGER NOT NULL PRIMARY KEY,
    module   TEXT    NOT NULL,
    function TEXT    NOT NULL,
    UNIQUE (module, function)
) STRICT;

-- Configuration documents. The same document has the same revision.
CREATE TABLE configs (
    revision   INTEGER NOT NULL PRIMARY KEY,
    digest     BLOB    NOT NULL UNIQUE,
    document   TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- Events as received. `has_runs` is 0 while no run refers to the event; `large` says that the payload is in blobs.
CREATE TABLE events (
    id          BLOB    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL,
    external_id TEXT,
    ts_ms       INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    has_runs    INTEGER NOT NULL,
    large       INTEGER NOT NULL,
    payload     TEXT
) STRICT, WITHOUT ROWID;
-- For the list of events of one name: a rare name among millions. Its key ends in the id, so it grows at one place
-- per name.
CREATE INDEX events_by_name ON events (name);
-- For waits that look back: what was received of a name since some time.
CREATE INDEX events_by_arrival ON events (name, received_ms);
-- For pruning events that started nothing. Empty where every event starts a run.
CREATE INDEX events_without_runs ON events (received_ms) WHERE has_runs = 0;

-- What keeps a second run of a function from starting for the same sender's event id within 24 hours.
CREATE TABLE dedupe (
    function_id INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    run_id      BLOB    NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (function_id, key)
) STRICT, WITHOUT ROWID;
-- For sweeping out what is older than 24 hours.
CREATE INDEX dedupe_by_age ON dedupe (at_ms);

-- Runs: narrow and of nearly constant width, so that an update stays in its page. Outputs and errors are in outcomes.
-- `phase` is null once the run has ended. (owner, epoch) is the lease. `due_ms` is the run's place in ready (phase
-- queued) or in timers (a waiting phase), null when it is in neither.
CREATE TABLE runs (
    id              BLOB    NOT NULL PRIMARY KEY,
    function_id     INTEGER NOT NULL,
    version_id      INTEGER NOT NULL,
    config_revision INTEGER NOT NULL,
    event_id        BLOB    NOT NULL,
    rerun_of        BLOB,
    seed            BLOB    NOT NULL,
    status          INTEGER NOT NULL,
    phase           INTEGER,
    owner           BLOB,
    epoch           INTEGER NOT NULL,
    due_ms          INTEGER,
    queued_ms       INTEGER NOT NULL,
    started_ms      INTEGER,
    ended_ms        INTEGER,
    journal_base    INTEGER NOT NULL,
    journal_next    INTEGER NOT NULL,
    journal_bytes   INTEGER NOT NULL,
    log_lines       INTEGER NOT NULL,
    claims          INTEGER NOT NULL,
    host_traps      INTEGER NOT NULL,
    continued       INTEGER NOT NULL,
    reason          TEXT
) STRICT, WITHOUT ROWID;
-- Only runs that have not ended: counts, runs that need a version, takeover, unblocking, lists by phase.
CREATE INDEX runs_live ON runs (version_id, phase) WHERE phase IS NOT NULL;
-- For the list of a function's runs.
CREATE INDEX runs_by_function ON runs (function_id);
-- For an event's runs, and for knowing that an event has none left.
CREATE INDEX runs_by_event ON runs (event_id);
-- For the list of failed, cancelled and skipped runs. Empty while all goes well.
CREATE INDEX runs_unhappy ON runs (status) WHERE status >= 3;
-- For pruning, oldest end first.
CREATE INDEX runs_by_end ON runs (ended_ms) WHERE ended_ms IS NOT NULL;

-- How a run ended, or why it is blocked.
CREATE TABLE outcomes (
    run_id BLOB    NOT NULL PRIMARY KEY,
    large  INTEGER NOT NULL,
    output TEXT,
    error  TEXT
) STRICT, WITHOUT ROWID;

-- The journal: append-only, and no other index than its key. A run's entries lie side by side, because coming back to
-- a run reads all of them: with row ids, each entry of a long run that grew beside others would be on a page of its own.
CREATE TABLE journal (
    run_id  BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    kind    INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    at_ms   INTEGER NOT NULL,
    meta    TEXT    NOT NULL,
    large   INTEGER NOT NULL,
    payload TEXT,
    PRIMARY KEY (run_id, seq)
) STRICT, WITHOUT ROWID;

-- Results of operations that the run's owner has not yet delivered.
CREATE TABLE completions (
    run_id    BLOB    NOT NULL,
    operation INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    payload   TEXT    NOT NULL,
    PRIMARY KEY (run_id, operation)
) STRICT, WITHOUT ROWID;

-- What runs wait for that others bring. `kind` 1: an event of that name, whose field at `path` has that `key` (both empty
-- when any will do), and for which `condition` (CEL) holds. 2: the signal of that name; one row at most.
CREATE TABLE waits (
    run_id    BLOB    NOT NULL,
    operation INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    path      TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    condition TEXT,
    PRIMARY KEY (run_id, operation)
) STRICT, WITHOUT ROWID;
-- For finding who waits for what is brought, among millions that wait for something else.
CREATE INDEX waits_by_name ON waits (kind, name, path, key);

-- The paths that waits for events of a name have ever had: what an event of that name has to be asked for. As many rows
-- as there are such steps in code.
CREATE TABLE wait_paths (
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (name, path)
) STRICT, WITHOUT ROWID;

-- Payloads over 64 KiB, so that tables that are scanned stay small. `owner_id` is the run's id, or the event's.
-- seq >= 0: that journal entry's payload. -1: the run's output. -2: what continue-with handed on. -3: an event's.
CREATE TABLE blobs (
    owner_id BLOB    NOT NULL,
    seq      INTEGER NOT NULL,
    bytes    TEXT    NOT NULL,
    PRIMARY KEY (owner_id, seq)
) STRICT;

-- Runs that any node may claim, oldest first.
CREATE TABLE ready (
    shard  INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    run_id BLOB    NOT NULL,
    PRIMARY KEY (shard, at_ms, run_id)
) STRICT, WITHOUT ROWID;

-- Runs that wait for a time: at most one row each.
CREATE TABLE timers (
    shard  INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    run_id BLOB    NOT NULL,
    PRIMARY KEY (shard, due_ms, run_id)
) STRICT, WITHOUT ROWID;

-- What functions logged.
CREATE TABLE logs (
    run_id  BLOB    NOT NULL,
    number  INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    level   TEXT    NOT NULL,
    step    TEXT,
    message TEXT    NOT NULL,
    fields  TEXT,
    PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

-- One row that is rewritten to find out whether a write is durable now.
CREATE TABLE probe (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO probe (one, at_ms) VALUES (1, 0);
