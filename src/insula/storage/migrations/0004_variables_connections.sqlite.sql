-- What workflows keep between their runs, and how they reach others.
CREATE TABLE variables (
    app_id TEXT NOT NULL,
    key TEXT NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT,
    value BLOB,
    sealed BLOB,
    key_id TEXT,
    hosts BLOB,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, key, since)
);

CREATE UNIQUE INDEX variables_today ON variables (app_id, key) WHERE until IS NULL;

CREATE INDEX variables_past ON variables (until) WHERE until IS NOT NULL;

CREATE INDEX variables_sealed ON variables (key_id) WHERE key_id IS NOT NULL;

CREATE TABLE connections (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    settings BLOB NOT NULL,
    sealed BLOB NOT NULL,
    key_id TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX connections_by_app ON connections (app_id, id);

CREATE INDEX connections_sealed ON connections (key_id) WHERE key_id IS NOT NULL;
