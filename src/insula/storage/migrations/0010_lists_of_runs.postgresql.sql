-- Lists of runs by status, by origin and by both, and what is due of one app.
DROP INDEX runs_by_app_status;

DROP INDEX runs_by_workflow_status;

DROP INDEX runs_by_workflow_origin;

CREATE INDEX runs_by_app_status ON runs (app_id, status, origin, id) WHERE NOT hidden;

CREATE INDEX runs_by_workflow_status ON runs (workflow_id, app_id, status, origin, id) WHERE ended_at IS NOT NULL AND NOT hidden;

CREATE INDEX runs_due_of_app ON runs (app_id, retention_due_at) WHERE erased_at IS NULL AND retention_due_at IS NOT NULL;
