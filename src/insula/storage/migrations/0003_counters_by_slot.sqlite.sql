-- Processes that share a database each count in a slot of their own; here there is one, slot 0.
CREATE TABLE counters_by_slot (
    app_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    status TEXT NOT NULL,
    origin TEXT NOT NULL,
    slot INTEGER NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (app_id, workflow_id, status, origin, slot)
)
 WITHOUT ROWID;

INSERT INTO counters_by_slot SELECT app_id, workflow_id, status, origin, 0, count FROM counters;

DROP TABLE counters;

ALTER TABLE counters_by_slot RENAME TO counters;
