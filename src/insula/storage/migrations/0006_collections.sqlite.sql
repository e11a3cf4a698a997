-- Tags; collections of rules, and the records that stand under them.
CREATE TABLE tags (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    name TEXT NOT NULL,
    color TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX tags_by_name ON tags (app_id, name);

CREATE TABLE tagged (
    tag_id TEXT NOT NULL,
    thing_id TEXT NOT NULL,
    PRIMARY KEY (tag_id, thing_id),
    FOREIGN KEY(tag_id) REFERENCES tags (id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX tagged_by_thing ON tagged (thing_id, tag_id);

CREATE TABLE collections (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    config_id TEXT NOT NULL,
    triggers BLOB NOT NULL,
    deleting BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX collections_by_app ON collections (app_id, id);

CREATE TABLE collection_configs (
    id TEXT NOT NULL,
    collection_id TEXT NOT NULL,
    rules BLOB NOT NULL,
    mappings BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX collection_configs_by_collection ON collection_configs (collection_id, id);

CREATE TABLE records (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    collection_id TEXT NOT NULL,
    config_id TEXT NOT NULL,
    name TEXT,
    status TEXT NOT NULL,
    source TEXT NOT NULL,
    rules_count INTEGER NOT NULL,
    pass_count INTEGER NOT NULL,
    fail_count INTEGER NOT NULL,
    warn_count INTEGER NOT NULL,
    analysis INTEGER NOT NULL,
    entity BLOB,
    created_by TEXT,
    cancel_requested_at BIGINT,
    cancel_requested_by TEXT,
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
    record_id TEXT NOT NULL,
    "key" TEXT NOT NULL,
    place INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    disabled BOOLEAN NOT NULL,
    due BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    input BLOB,
    run_id TEXT,
    ended TEXT,
    outcome BLOB,
    ran BLOB,
    credits FLOAT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (record_id, "key"),
    FOREIGN KEY(record_id) REFERENCES records (id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX record_rules_running ON record_rules (record_id) WHERE status = 'RUNNING';
