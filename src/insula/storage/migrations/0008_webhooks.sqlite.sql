-- Webhooks, what they are told, and the addresses by which the outside starts runs.
CREATE TABLE webhooks (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    disabled_reason TEXT,
    failing_since BIGINT,
    sealed BLOB NOT NULL,
    key_id TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX webhooks_by_app ON webhooks (app_id, id);

CREATE INDEX webhooks_sealed ON webhooks (key_id) WHERE key_id IS NOT NULL;

CREATE TABLE deliveries (
    webhook_id TEXT NOT NULL,
    id TEXT NOT NULL,
    event TEXT NOT NULL,
    body BLOB,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    log BLOB NOT NULL,
    next_at BIGINT,
    thing_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, id)
);

CREATE INDEX deliveries_by_age ON deliveries (id);

CREATE INDEX deliveries_by_thing ON deliveries (thing_id);

CREATE INDEX deliveries_due ON deliveries (next_at, id) WHERE next_at IS NOT NULL;

CREATE TABLE hook_tokens (
    workflow_id TEXT NOT NULL,
    target TEXT NOT NULL,
    app_id TEXT NOT NULL,
    hash BLOB NOT NULL,
    sealed BLOB NOT NULL,
    key_id TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (workflow_id, target),
    UNIQUE (hash)
);

CREATE INDEX hook_tokens_by_app ON hook_tokens (app_id);

CREATE INDEX hook_tokens_sealed ON hook_tokens (key_id) WHERE key_id IS NOT NULL;
