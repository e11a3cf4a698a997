-- Lists of runs by status, by origin and by both; what is due of one app; and what waits for
-- delivery, or to be tested, by whose it is, so that all get their turn.
DROP INDEX runs_by_app_status;

DROP INDEX runs_by_workflow_status;

DROP INDEX runs_by_workflow_origin;

CREATE INDEX runs_by_app_status ON runs (app_id, status, origin, id) WHERE NOT hidden;

CREATE INDEX runs_by_workflow_status ON runs (workflow_id, app_id, status, origin, id) WHERE ended_at IS NOT NULL AND NOT hidden;

CREATE INDEX runs_due_of_app ON runs (app_id, retention_due_at) WHERE erased_at IS NULL AND retention_due_at IS NOT NULL;

DROP INDEX deliveries_due;

CREATE INDEX deliveries_due ON deliveries (webhook_id, next_at, id) WHERE next_at IS NOT NULL;

DROP INDEX workflow_tests_running;

CREATE INDEX workflow_tests_running ON workflow_tests (workflow_id, run_id, updated_at, id) WHERE status = 'RUNNING';
