-- The schema of Dormouse on Postgres. It mirrors SQLite's table by table; what differs is said where it does. Times are
-- Unix milliseconds and end in _ms. Ids of runs and events are ULIDs stored as uuid: rows land at the end of their
-- tables and indexes. Absent on purpose: foreign keys, triggers, counters, updated_at, sequences. Every index says what
-- it is for.
--
-- Postgres writes a new row version for each update. An update that changes no indexed column (nor one that an index's
-- condition names) stays in its page and touches no index, which is why the conditions below name `live` and
-- `unhappy`, which change once in a run's life, and never `phase`, which changes all the time.

-- Processes that live. A node whose heartbeat is too old by this server's clock is deleted by whoever finds it.
CREATE TABLE nodes (
    incarnation  uuid    NOT NULL PRIMARY KEY,
    name         text    NOT NULL,
    release      text    NOT NULL,
    url          text    NOT NULL,
    draining     boolean NOT NULL DEFAULT false,
    joined_ms    bigint  NOT NULL,
    heartbeat_ms bigint  NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

-- Nodes that ended and may still own runs: looking for those reads all live runs, so it is done only while a row is
-- here.
CREATE TABLE graves (
    incarnation uuid NOT NULL PRIMARY KEY
);

-- One row: a number that moves with every change to modules, so that nothing is decided on what was true before.
CREATE TABLE registry (
    one        smallint NOT NULL PRIMARY KEY CHECK (one = 1),
    generation bigint   NOT NULL
);
INSERT INTO registry (one, generation) VALUES (1, 1);

-- Versions of modules. Runs name them by id; a deleted one keeps its row, because ended runs still name it.
CREATE TABLE versions (
    id          bigint  NOT NULL PRIMARY KEY,
    module      text    NOT NULL,
    digest      bytea   NOT NULL,
    manifest    text    NOT NULL,
    size        bigint  NOT NULL,
    uploaded_by text    NOT NULL,
    message     text,
    uploaded_ms bigint  NOT NULL,
    deleted     boolean NOT NULL DEFAULT false,
    UNIQUE (module, digest)
);

-- The active version of each module: activation is one row.
CREATE TABLE modules (
    module       text   NOT NULL PRIMARY KEY,
    version_id   bigint NOT NULL,
    activated_ms bigint NOT NULL
);

-- The components themselves: every node reads them from here. Not compressed: they are read rarely and whole.
CREATE TABLE components (
    digest    bytea  NOT NULL PRIMARY KEY,
    bytes     bytea  NOT NULL,
    stored_ms bigint NOT NULL
);
ALTER TABLE components ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Functions that have ever had a run, so that a run names its function by a small number.
CREATE TABLE functions (
    id       bigint NOT NULL PRIMARY KEY,
    module   text   NOT NULL,
    function text   NOT NULL,
    UNIQUE (module, function)
);

-- Configuration documents. The same document has the same revision.
CREATE TABLE configs (
    revision   bigint NOT NULL PRIMARY KEY,
    digest     bytea  NOT NULL UNIQUE,
    document   text   NOT NULL,
    created_ms bigint NOT NULL
);

-- Events as received. `has_runs` is false while no run refers to the event; `large` says that the payload is in blobs.
CREATE TABLE events (
    id          uuid    NOT NULL PRIMARY KEY,
    name        text    NOT NULL,
    external_id text,
    ts_ms       bigint  NOT NULL,
    received_ms bigint  NOT NULL,
    has_runs    boolean NOT NULL,
    large       boolean NOT NULL,
    payload     text
);
-- For the list of events of one name, newest first.
CREATE INDEX events_by_name ON events (name, id);
-- For waits that look back: what was received of a name since some time.
CREATE INDEX events_by_arrival ON events (name, received_ms, id);
-- For pruning events that started nothing. Empty where every event starts a run.
CREATE INDEX events_without_runs ON events (received_ms) WHERE NOT has_runs;

-- What keeps a second run of a function from starting for the same sender's event id within 24 hours.
CREATE TABLE dedupe (
    function_id bigint NOT NULL,
    key         text   NOT NULL,
    run_id      uuid   NOT NULL,
    at_ms       bigint NOT NULL,
    PRIMARY KEY (function_id, key)
);
-- For sweeping out what is older than 24 hours.
CREATE INDEX dedupe_by_age ON dedupe (at_ms);

-- Runs: narrow. Outputs and errors are in outcomes. `phase` is null once the run has ended. (owner, epoch) is the
-- lease. `due_ms` is the run's place in ready (phase queued) or in timers (a waiting phase), null when it is in
-- neither. `completions` and `waits` say that rows of these tables may be there: it stands here because whoever waits
-- for this row's lock is given the row as it is then, but sees other tables as they were when its statement began.
CREATE TABLE runs (
    id              uuid     NOT NULL PRIMARY KEY,
    function_id     bigint   NOT NULL,
    version_id      bigint   NOT NULL,
    config_revision bigint   NOT NULL,
    event_id        uuid     NOT NULL,
    rerun_of        uuid,
    seed            bytea    NOT NULL,
    status          smallint NOT NULL,
    phase           smallint,
    live            boolean  NOT NULL,
    unhappy         boolean  NOT NULL,
    owner           uuid,
    epoch           bigint   NOT NULL,
    due_ms          bigint,
    queued_ms       bigint   NOT NULL,
    started_ms      bigint,
    ended_ms        bigint,
    journal_base    bigint   NOT NULL,
    journal_next    bigint   NOT NULL,
    journal_bytes   bigint   NOT NULL,
    log_lines       bigint   NOT NULL,
    claims          bigint   NOT NULL,
    host_traps      bigint   NOT NULL,
    continued       boolean  NOT NULL,
    completions     boolean  NOT NULL,
    waits           boolean  NOT NULL,
    reason          text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- Only runs that have not ended: counts, runs that need a version, takeover, unblocking, lists by phase.
CREATE INDEX runs_live ON runs (id) WHERE live;
-- For the list of a function's runs.
CREATE INDEX runs_by_function ON runs (function_id, id);
-- For an event's runs, and for knowing that an event has none left.
CREATE INDEX runs_by_event ON runs (event_id, id);
-- For the list of failed, cancelled and skipped runs. Empty while all goes well.
CREATE INDEX runs_unhappy ON runs (id) WHERE unhappy;
-- For pruning, oldest end first.
CREATE INDEX runs_by_end ON runs (ended_ms, id) WHERE ended_ms IS NOT NULL;

-- How a run ended, or why it is blocked.
CREATE TABLE outcomes (
    run_id uuid    NOT NULL PRIMARY KEY,
    large  boolean NOT NULL,
    output text,
    error  text
);

-- The journal: append-only, and no other index than its key.
CREATE TABLE journal (
    run_id  uuid     NOT NULL,
    seq     bigint   NOT NULL,
    kind    smallint NOT NULL,
    large   boolean  NOT NULL,
    at_ms   bigint   NOT NULL,
    name    text     NOT NULL,
    meta    text     NOT NULL,
    payload text,
    PRIMARY KEY (run_id, seq)
);

-- Results of operations that the run's owner has not yet delivered.
CREATE TABLE completions (
    run_id    uuid    NOT NULL,
    operation bigint  NOT NULL,
    at_ms     bigint  NOT NULL,
    failed    boolean NOT NULL,
    payload   text    NOT NULL,
    PRIMARY KEY (run_id, operation)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- What runs wait for that others bring. `kind` 1: an event of that name, whose field at `path` has that `key` (both empty
-- when any will do), and for which `condition` (CEL) holds. 2: the signal of that name; one row at most. Whoever adds or
-- removes a row holds the lock of the run's.
CREATE TABLE waits (
    run_id    uuid     NOT NULL,
    operation bigint   NOT NULL,
    kind      smallint NOT NULL,
    name      text     NOT NULL,
    path      text     NOT NULL,
    key       text     NOT NULL,
    condition text,
    PRIMARY KEY (run_id, operation)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
-- For finding who waits for what is brought, among millions that wait for something else.
CREATE INDEX waits_by_name ON waits (kind, name, path, key);

-- The paths that waits for events of a name have ever had: what an event of that name has to be asked for. As many rows
-- as there are such steps in code. Rows are never deleted, so that nodes may remember them.
CREATE TABLE wait_paths (
    name text NOT NULL,
    path text NOT NULL,
    PRIMARY KEY (name, path)
);

-- Payloads over 64 KiB, so that tables that are scanned stay small. `owner_id` is the run's id, or the event's.
-- seq >= 0: that journal entry's payload. -1: the run's output. -2: what continue-with handed on. -3: an event's.
CREATE TABLE blobs (
    owner_id uuid   NOT NULL,
    seq      bigint NOT NULL,
    bytes    text   NOT NULL,
    PRIMARY KEY (owner_id, seq)
);

-- Runs that any node may claim, oldest first. Rows come and go: it has to be vacuumed often, and quickly.
CREATE TABLE ready (
    shard  smallint NOT NULL,
    at_ms  bigint   NOT NULL,
    run_id uuid     NOT NULL,
    PRIMARY KEY (shard, at_ms, run_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- Runs that wait for a time: at most one row each.
CREATE TABLE timers (
    shard  smallint NOT NULL,
    due_ms bigint   NOT NULL,
    run_id uuid     NOT NULL,
    PRIMARY KEY (shard, due_ms, run_id)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- What functions logged.
CREATE TABLE logs (
    run_id  uuid   NOT NULL,
    number  bigint NOT NULL,
    at_ms   bigint NOT NULL,
    level   text   NOT NULL,
    step    text,
    message text   NOT NULL,
    fields  text,
    PRIMARY KEY (run_id, number)
);

-- Receipts: each commit of a writer leaves its number here. When a connection is lost between COMMIT and its answer, the
-- number is inserted again: it is there, so the commit was made; or it is not, and now it never will be. Old rows are
-- deleted by the writer they belong to, those of writers that ended after a day.
CREATE TABLE receipts (
    writer uuid   NOT NULL,
    number bigint NOT NULL,
    at_ms  bigint NOT NULL,
    PRIMARY KEY (writer, number)
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- One row that is rewritten to find out whether a write is durable now.
CREATE TABLE probe (
    one   smallint NOT NULL PRIMARY KEY CHECK (one = 1),
    at_ms bigint   NOT NULL
) WITH (fillfactor = 50);
INSERT INTO probe (one, at_ms) VALUES (1, 0);
