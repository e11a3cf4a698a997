-- What starts runs by the clock.
CREATE TABLE schedules (
    id TEXT COLLATE "C" NOT NULL,
    app_id TEXT COLLATE "C" NOT NULL,
    workflow_id TEXT COLLATE "C" NOT NULL,
    step_key TEXT COLLATE "C",
    version TEXT COLLATE "C",
    from_step_key TEXT COLLATE "C",
    cron TEXT COLLATE "C",
    every BIGINT,
    at BIGINT,
    timezone TEXT COLLATE "C" NOT NULL,
    anchor BIGINT NOT NULL,
    missed TEXT COLLATE "C" NOT NULL,
    input BYTEA,
    enabled BOOLEAN NOT NULL,
    next_at BIGINT,
    last_at BIGINT,
    last_run_id TEXT COLLATE "C",
    last_error TEXT COLLATE "C",
    runs BIGINT NOT NULL,
    created_by TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX schedules_by_app ON schedules (app_id, id);

CREATE INDEX schedules_by_workflow ON schedules (workflow_id, step_key);

CREATE INDEX schedules_due ON schedules (next_at, id) WHERE next_at IS NOT NULL;
