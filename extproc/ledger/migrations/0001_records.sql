-- Read by SQLite and by Postgres as it is: SQLite takes any name for a type. One statement ends with
-- a semicolon at the end of a line.

CREATE TABLE decisions (
    id TEXT NOT NULL PRIMARY KEY,
    occurred_at_us BIGINT NOT NULL,
    instance TEXT NOT NULL,
    effect TEXT NOT NULL,
    enforced_effect TEXT NOT NULL,
    reason TEXT NOT NULL,
    policy TEXT NOT NULL,
    team TEXT NOT NULL,
    user_name TEXT NOT NULL,
    key_name TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    operation TEXT NOT NULL,
    would_deny BOOLEAN NOT NULL,
    is_open BOOLEAN NOT NULL,
    deadline_us BIGINT NOT NULL,
    record BYTEA NOT NULL
);

CREATE INDEX decisions_by_time ON decisions (occurred_at_us);

CREATE INDEX decisions_open ON decisions (deadline_us) WHERE is_open;

CREATE TABLE usage (
    decision_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    basis TEXT NOT NULL,
    occurred_at_us BIGINT NOT NULL,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cache_read_input_tokens BIGINT,
    cache_creation_input_tokens BIGINT,
    reasoning_output_tokens BIGINT,
    nano_usd BIGINT,
    record BYTEA NOT NULL,
    PRIMARY KEY (decision_id, sequence)
);

CREATE INDEX usage_by_time ON usage (occurred_at_us);

CREATE TABLE counters (
    scope TEXT NOT NULL,
    counter TEXT NOT NULL,
    version BIGINT NOT NULL,
    state TEXT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    PRIMARY KEY (scope, counter)
);

CREATE TABLE changes (
    id TEXT NOT NULL PRIMARY KEY,
    occurred_at_us BIGINT NOT NULL,
    instance TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    record BYTEA NOT NULL
);

CREATE INDEX changes_by_time ON changes (occurred_at_us);
