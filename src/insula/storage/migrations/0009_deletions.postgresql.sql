-- Deletions that were begun, so that another process goes on with them.
ALTER TABLE apps ADD COLUMN deleting BOOLEAN;

CREATE INDEX apps_deleting ON apps (id) WHERE deleting;

ALTER TABLE workflows ADD COLUMN stopping BOOLEAN;

CREATE INDEX workflows_stopping ON workflows (id) WHERE stopping;
