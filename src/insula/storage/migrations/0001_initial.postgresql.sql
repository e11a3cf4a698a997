-- Every table and index of the first release.
CREATE TABLE apps (
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    verified BOOLEAN NOT NULL,
    settings BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE blocked_callers (
    workflow_id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (workflow_id, app_id)
);

CREATE TABLE counters (
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (app_id, workflow_id, status, origin)
);

CREATE TABLE daily_totals (
    day INTEGER NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    runs BIGINT NOT NULL,
    credits FLOAT NOT NULL,
    PRIMARY KEY (day, app_id, workflow_id, status)
);

CREATE TABLE facts (
    name TEXT COLLATE "C" NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (name)
);

CREATE TABLE files (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C",
    filename TEXT COLLATE "C" NOT NULL,
    mimetype TEXT COLLATE "C" NOT NULL,
    size BIGINT NOT NULL,
    storage TEXT COLLATE "C" NOT NULL,
    visibility TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX files_by_app ON files (app_id, id);

CREATE INDEX files_by_expiry ON files (expires_at);

CREATE INDEX files_by_run ON files (run_id);

CREATE TABLE idempotency (
    app_id TEXT COLLATE "C" NOT NULL,
    method TEXT COLLATE "C" NOT NULL,
    path TEXT COLLATE "C" NOT NULL,
    "key" TEXT COLLATE "C" NOT NULL,
    body_hash BYTEA NOT NULL,
    resource_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, method, path, "key")
);

CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE nodes (
    token TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    PRIMARY KEY (token)
);

CREATE TABLE run_data (
    run_id TEXT COLLATE "C" NOT NULL,
    input BYTEA,
    draft BYTEA,
    request BYTEA,
    kept BYTEA,
    events BYTEA,
    PRIMARY KEY (run_id)
);

CREATE TABLE run_events (
    run_id TEXT COLLATE "C" NOT NULL,
    seq INTEGER NOT NULL,
    events BYTEA NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE runs (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    version_id TEXT COLLATE "C",
    version INTEGER,
    root_id TEXT COLLATE "C" NOT NULL,
    parent_id TEXT COLLATE "C",
    parent_key TEXT COLLATE "C",
    depth INTEGER NOT NULL,
    hidden BOOLEAN NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    identifier TEXT COLLATE "C",
    from_step_key TEXT COLLATE "C",
    replay_of TEXT COLLATE "C",
    background BOOLEAN NOT NULL,
    options BYTEA NOT NULL,
    owner TEXT COLLATE "C",
    seq INTEGER NOT NULL,
    error TEXT COLLATE "C",
    credits FLOAT NOT NULL,
    retention BYTEA,
    retention_due_at BIGINT,
    erased_at BIGINT,
    cancel_requested_at BIGINT,
    cancel_requested_by TEXT COLLATE "C",
    started_at BIGINT,
    ended_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX runs_by_app ON runs (app_id, id);

CREATE INDEX runs_by_app_status ON runs (app_id, status, id) WHERE status IN ('FAILED', 'CANCELLED', 'SKIPPED');

CREATE INDEX runs_by_identifier ON runs (app_id, identifier, id) WHERE identifier IS NOT NULL;

CREATE INDEX runs_by_root ON runs (root_id) WHERE depth > 0;

CREATE INDEX runs_by_workflow ON runs (workflow_id, app_id, id);

CREATE INDEX runs_by_workflow_origin ON runs (workflow_id, app_id, origin, id) WHERE origin <> 'ENDPOINT';

CREATE INDEX runs_by_workflow_status ON runs (workflow_id, app_id, status, id) WHERE status IN ('FAILED', 'CANCELLED', 'SKIPPED');

CREATE INDEX runs_due ON runs (retention_due_at) WHERE erased_at IS NULL AND retention_due_at IS NOT NULL;

CREATE INDEX runs_live ON runs (owner, id) WHERE ended_at IS NULL;

CREATE TABLE versions (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    version INTEGER NOT NULL,
    rollback_version INTEGER,
    description TEXT COLLATE "C",
    notes TEXT COLLATE "C",
    created_by TEXT COLLATE "C",
    body BYTEA NOT NULL,
    body_hash BYTEA NOT NULL,
    withdrawn BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX versions_by_workflow ON versions (workflow_id, version);

CREATE TABLE keys (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    read_only BOOLEAN NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE,
    UNIQUE (hash)
);

CREATE INDEX keys_by_app ON keys (app_id, id);

CREATE TABLE workflows (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C",
    body BYTEA NOT NULL,
    problems BYTEA NOT NULL,
    latest_version_id TEXT COLLATE "C",
    latest_version INTEGER NOT NULL,
    retention BYTEA,
    tags BYTEA NOT NULL,
    enabled BOOLEAN NOT NULL,
    discoverable BOOLEAN NOT NULL,
    open BOOLEAN NOT NULL,
    published_from_version INTEGER,
    caller_limit INTEGER,
    deleted BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(app_id) REFERENCES apps (id) ON DELETE CASCADE
);

CREATE INDEX workflows_by_app ON workflows (app_id, deleted, id);

CREATE INDEX workflows_discoverable ON workflows (id) WHERE discoverable AND NOT deleted;
