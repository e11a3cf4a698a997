-- Tags; collections of rules, and the records that stand under them.
CREATE TABLE tags (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    color TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX tags_by_name ON tags (app_id, name);

CREATE TABLE tagged (
    tag_id TEXT COLLATE "C" NOT NULL,
    thing_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tag_id, thing_id),
    FOREIGN KEY(tag_id) REFERENCES tags (id) ON DELETE CASCADE
);

CREATE INDEX tagged_by_thing ON tagged (thing_id, tag_id);

CREATE TABLE collections (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C",
    config_id TEXT COLLATE "C" NOT NULL,
    triggers BYTEA NOT NULL,
    deleting BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX collections_by_app ON collections (app_id, id);

CREATE TABLE collection_configs (
    id TEXT COLLATE "C" NOT NULL,
    collection_id TEXT COLLATE "C" NOT NULL,
    rules BYTEA NOT NULL,
    mappings BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX collection_configs_by_collection ON collection_configs (collection_id, id);

CREATE TABLE records (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    collection_id TEXT COLLATE "C" NOT NULL,
    config_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    rules_count INTEGER NOT NULL,
    pass_count INTEGER NOT NULL,
    fail_count INTEGER NOT NULL,
    warn_count INTEGER NOT NULL,
    analysis INTEGER NOT NULL,
    entity BYTEA,
    created_by TEXT COLLATE "C",
    cancel_requested_at BIGINT,
    cancel_requested_by TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX records_by_app ON records (app_id, id, name);

CREATE INDEX records_by_collection ON records (collection_id, id, name);

CREATE INDEX records_by_config ON records (config_id);

CREATE INDEX records_by_status ON records (collection_id, status, id);

CREATE INDEX records_live ON records (id) WHERE status IN ('QUEUED', 'RUNNING');

CREATE TABLE record_rules (
    record_id TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    place INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    disabled BOOLEAN NOT NULL,
    due BOOLEAN NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    input BYTEA,
    run_id TEXT COLLATE "C",
    ended TEXT COLLATE "C",
    outcome BYTEA,
    ran BYTEA,
    credits FLOAT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (record_id, key),
    FOREIGN KEY(record_id) REFERENCES records (id) ON DELETE CASCADE
);

CREATE INDEX record_rules_running ON record_rules (record_id) WHERE status = 'RUNNING';
