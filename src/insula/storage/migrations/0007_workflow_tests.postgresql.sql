-- Tests of workflows, and what they expect.
ALTER TABLE workflows ADD COLUMN require_tests BOOLEAN;

CREATE TABLE workflow_expectations (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    script BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX workflow_expectations_by_workflow ON workflow_expectations (workflow_id, id);

CREATE TABLE workflow_tests (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    input BYTEA,
    input_default BYTEA,
    input_context BYTEA,
    step_key TEXT COLLATE "C",
    expectations BYTEA NOT NULL,
    passing INTEGER NOT NULL,
    failing INTEGER NOT NULL,
    run_id TEXT COLLATE "C",
    error TEXT COLLATE "C",
    version TEXT COLLATE "C",
    ran BYTEA,
    recording BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX workflow_tests_by_workflow ON workflow_tests (workflow_id, id, status);

CREATE INDEX workflow_tests_running ON workflow_tests (id) WHERE status = 'RUNNING';
