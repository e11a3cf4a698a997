-- What is looked for again and again and hardly ever there: what is deleted, and not gone yet. And
-- the deliveries of a webhook by status.
CREATE INDEX apps_gone ON apps (id) WHERE NOT deleting;

CREATE INDEX workflows_deleted ON workflows (id) WHERE deleted;

CREATE INDEX collections_deleting ON collections (app_id, id) WHERE deleting;

CREATE INDEX deliveries_by_status ON deliveries (webhook_id, status, id);
