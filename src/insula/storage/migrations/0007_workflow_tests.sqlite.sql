-- Tests of workflows, and what they expect.
ALTER TABLE workflows ADD COLUMN require_tests BOOLEAN;

CREATE TABLE workflow_expectations (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    name TEXT NOT NULL,
    script BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX workflow_expectations_by_workflow ON workflow_expectations (workflow_id, id);

CREATE TABLE workflow_tests (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    input BLOB,
    input_default BLOB,
    input_context BLOB,
    step_key TEXT,
    expectations BLOB NOT NULL,
    passing INTEGER NOT NULL,
    failing INTEGER NOT NULL,
    run_id TEXT,
    error TEXT,
    version TEXT,
    ran BLOB,
    recording BLOB,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX workflow_tests_by_workflow ON workflow_tests (workflow_id, id, status);

CREATE INDEX workflow_tests_running ON workflow_tests (id) WHERE status = 'RUNNING';
