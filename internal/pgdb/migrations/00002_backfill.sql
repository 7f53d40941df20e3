-- +goose Up

CREATE TABLE lockstep.backfill (
    id           uuid        PRIMARY KEY,
    n            integer     NOT NULL,
    database     text        NOT NULL,
    consumer_id  uuid,
    consumer     text        NOT NULL DEFAULT '',
    gap          boolean     NOT NULL DEFAULT false,
    origin       text        NOT NULL,
    condition    text        NOT NULL DEFAULT '',
    state        text        NOT NULL CHECK (state IN ('running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')),
    reason       text        NOT NULL DEFAULT '',
    rows         bigint      NOT NULL DEFAULT 0,
    total        bigint      NOT NULL DEFAULT 0,
    overridden   bigint      NOT NULL DEFAULT 0,
    deletes      bigint      NOT NULL DEFAULT 0,
    seq          bigint      NOT NULL DEFAULT 0,
    revision     bigint      NOT NULL DEFAULT 1,
    writer       text        NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL,
    started_at   timestamptz,
    ended_at     timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (gap = (consumer_id IS NULL))
);
CREATE UNIQUE INDEX backfill_number ON lockstep.backfill (consumer_id, n) WHERE NOT gap;
CREATE UNIQUE INDEX backfill_gap_number ON lockstep.backfill (database, n) WHERE gap;
CREATE INDEX backfill_active ON lockstep.backfill (created_at) WHERE state IN ('running', 'waiting', 'paused');
COMMENT ON TABLE  lockstep.backfill IS 'Backfills: rows of tables that are sent to one consumer, or to all for a gap. Started, paused and cancelled through the API, not by hand: a running node does not watch this table.';
COMMENT ON COLUMN lockstep.backfill.n IS 'Counts the backfills of the consumer from 1; those for gaps count per database.';
COMMENT ON COLUMN lockstep.backfill.consumer_id IS 'The consumer that gets the rows; NULL for a gap, where everybody does.';
COMMENT ON COLUMN lockstep.backfill.origin IS 'api, or definition for the one that a definition with backfill: true starts.';
COMMENT ON COLUMN lockstep.backfill.condition IS 'Only rows for which this expression is true; empty: all.';
COMMENT ON COLUMN lockstep.backfill.reason IS 'Why it waits or failed, and what to do.';
COMMENT ON COLUMN lockstep.backfill.rows IS 'Rows put into the stream.';
COMMENT ON COLUMN lockstep.backfill.total IS 'An estimate of how many there are; 0: unknown.';
COMMENT ON COLUMN lockstep.backfill.overridden IS 'Rows left out, because the stream has a newer change of them.';
COMMENT ON COLUMN lockstep.backfill.deletes IS 'Deletes that a repair of gaps has added.';
COMMENT ON COLUMN lockstep.backfill.seq IS 'How far the stream had come when the row was saved; what came later is looked through at a restart.';
COMMENT ON COLUMN lockstep.backfill.writer IS 'The process that saved the row last.';
COMMENT ON COLUMN lockstep.backfill.revision IS 'Grows with each save, so that two nodes cannot both go on.';

CREATE TABLE lockstep.backfill_table (
    backfill_id  uuid        NOT NULL REFERENCES lockstep.backfill (id) ON DELETE CASCADE,
    place        integer     NOT NULL,
    oid          oid         NOT NULL,
    schema       text        NOT NULL,
    name         text        NOT NULL,
    state        text        NOT NULL,
    reason       text        NOT NULL DEFAULT '',
    rows         bigint      NOT NULL DEFAULT 0,
    total        bigint      NOT NULL DEFAULT 0,
    position     jsonb       NOT NULL DEFAULT '{}',
    PRIMARY KEY (backfill_id, place)
);
COMMENT ON TABLE  lockstep.backfill_table IS 'The tables of each backfill, in the order in which they are read.';
COMMENT ON COLUMN lockstep.backfill_table.oid IS 'The table''s oid in the captured database, by which it is found after a rename.';
COMMENT ON COLUMN lockstep.backfill_table.state IS 'waiting: not begun yet; running, completed, failed, cancelled.';
COMMENT ON COLUMN lockstep.backfill_table.reason IS 'Why it failed, and what to do; or what is worth knowing of how it went.';
COMMENT ON COLUMN lockstep.backfill_table.position IS 'How far it has been read: the key''s values, each as base64 of its Postgres text.';

-- +goose Down

DROP TABLE lockstep.backfill_table, lockstep.backfill;
