-- Files that come of documents, what is found in these, and links to upload with.
ALTER TABLE files ADD COLUMN parent_id TEXT;

CREATE INDEX files_listed ON files (app_id, id) WHERE parent_id IS NULL;

CREATE INDEX files_by_parent ON files (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE extractions (
    file_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    progress FLOAT NOT NULL,
    wanted BLOB NOT NULL,
    owner TEXT,
    attempts INTEGER NOT NULL,
    document BLOB,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (file_id),
    FOREIGN KEY(file_id) REFERENCES files (id) ON DELETE CASCADE
);

CREATE INDEX extractions_open ON extractions (app_id, file_id) WHERE status = 'PROCESSING';

CREATE TABLE uploads (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    storage TEXT NOT NULL,
    visibility TEXT NOT NULL,
    options BLOB NOT NULL,
    claim TEXT,
    used_at BIGINT,
    expires_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (file_id)
);

CREATE INDEX uploads_by_app ON uploads (app_id, id);

CREATE INDEX uploads_by_expiry ON uploads (expires_at);
