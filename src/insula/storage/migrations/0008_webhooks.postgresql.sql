-- Webhooks, what they are told, and the addresses by which the outside starts runs.
CREATE TABLE webhooks (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    events TEXT COLLATE "C" NOT NULL,
    enabled BOOLEAN NOT NULL,
    disabled_reason TEXT COLLATE "C",
    failing_since BIGINT,
    sealed BYTEA NOT NULL,
    key_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX webhooks_by_app ON webhooks (app_id, id);

CREATE INDEX webhooks_sealed ON webhooks (key_id) WHERE key_id IS NOT NULL;

CREATE TABLE deliveries (
    webhook_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    event TEXT COLLATE "C" NOT NULL,
    body BYTEA,
    status TEXT COLLATE "C" NOT NULL,
    attempts INTEGER NOT NULL,
    log BYTEA NOT NULL,
    next_at BIGINT,
    thing_id TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (webhook_id, id)
);

CREATE INDEX deliveries_by_age ON deliveries (id);

CREATE INDEX deliveries_by_thing ON deliveries (thing_id);

CREATE INDEX deliveries_due ON deliveries (next_at, id) WHERE next_at IS NOT NULL;

CREATE TABLE hook_tokens (
    workflow_id TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    key_id TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    PRIMARY KEY (workflow_id, target),
    UNIQUE (hash)
);

CREATE INDEX hook_tokens_by_app ON hook_tokens (app_id);

CREATE INDEX hook_tokens_sealed ON hook_tokens (key_id) WHERE key_id IS NOT NULL;
