-- What starts runs by the clock.
CREATE TABLE schedules (
    id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    step_key TEXT,
    version TEXT,
    from_step_key TEXT,
    cron TEXT,
    every BIGINT,
    at BIGINT,
    timezone TEXT NOT NULL,
    anchor BIGINT NOT NULL,
    missed TEXT NOT NULL,
    input BLOB,
    enabled BOOLEAN NOT NULL,
    next_at BIGINT,
    last_at BIGINT,
    last_run_id TEXT,
    last_error TEXT,
    runs BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX schedules_by_app ON schedules (app_id, id);

CREATE INDEX schedules_by_workflow ON schedules (workflow_id, step_key);

CREATE INDEX schedules_due ON schedules (next_at, id) WHERE next_at IS NOT NULL;
