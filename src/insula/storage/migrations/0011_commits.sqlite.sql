-- What became of a commit whose answer was lost; used on PostgreSQL.
CREATE TABLE commits (
    writer BIGINT NOT NULL,
    number BIGINT NOT NULL,
    stands BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (writer, number)
);
