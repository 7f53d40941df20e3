-- +goose Up

CREATE TABLE lockstep.sync (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL UNIQUE CHECK (name <> ''),
    provider    text        NOT NULL,
    schema      text        NOT NULL UNIQUE,
    definition  jsonb       NOT NULL DEFAULT '{}',
    paused      boolean     NOT NULL DEFAULT false,
    managed_by  text        NOT NULL DEFAULT 'api',
    fence       bigint      NOT NULL DEFAULT 0,
    holder      text        NOT NULL DEFAULT '',
    locked_at   timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  lockstep.sync IS 'Syncs: accounts of APIs that are mirrored into this database. Changed through the API or the configuration, not by hand: a running node does not watch this table.';
COMMENT ON COLUMN lockstep.sync.provider IS 'stripe, github, …: which API.';
COMMENT ON COLUMN lockstep.sync.schema IS 'Where the mirror tables lie; one sync per schema.';
COMMENT ON COLUMN lockstep.sync.definition IS 'The definition as in the configuration file, without the credential.';
COMMENT ON COLUMN lockstep.sync.paused IS 'Nothing is read from the API while it is true.';
COMMENT ON COLUMN lockstep.sync.managed_by IS 'api, or file for those of the configuration file.';
COMMENT ON COLUMN lockstep.sync.fence IS 'Grows with each engine that takes the sync over; the one before can write no more.';
COMMENT ON COLUMN lockstep.sync.holder IS 'The process that took the sync over last.';

CREATE TABLE lockstep.sync_state (
    sync_id     uuid        NOT NULL,
    collection  text        NOT NULL,
    table_name  text        NOT NULL DEFAULT '',
    cursors     jsonb       NOT NULL DEFAULT '{}',
    state       text        NOT NULL DEFAULT '',
    progress    jsonb       NOT NULL DEFAULT '{}',
    last_error  text        NOT NULL DEFAULT '',
    quota       jsonb       NOT NULL DEFAULT '{}',
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sync_id, collection)
);
COMMENT ON TABLE  lockstep.sync_state IS 'How far each collection of a sync is, one row per sync and collection (or feed of changes).';
COMMENT ON COLUMN lockstep.sync_state.table_name IS 'The mirror table; empty for feeds.';
COMMENT ON COLUMN lockstep.sync_state.cursors IS 'Places in the API by kind: change, backfill, sweep, …. They commit with the rows that were read up to there.';
COMMENT ON COLUMN lockstep.sync_state.state IS 'What goes on: backfilling, polling, paused, …';
COMMENT ON COLUMN lockstep.sync_state.progress IS 'Of the backfill: records so far, total if known.';
COMMENT ON COLUMN lockstep.sync_state.last_error IS 'Empty when the last call went well.';
COMMENT ON COLUMN lockstep.sync_state.quota IS 'What the API said is left of its limits.';

CREATE TABLE lockstep.sync_column (
    sync_id     uuid        NOT NULL,
    collection  text        NOT NULL,
    key         text        NOT NULL,
    type        text        NOT NULL,
    path        text[]      NOT NULL,
    column_name text        NOT NULL,
    filled      boolean     NOT NULL,
    fill_after  text        NOT NULL DEFAULT '',
    added_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sync_id, collection, key, type)
);
COMMENT ON TABLE  lockstep.sync_column IS 'Which field of the API lies in which column; a field whose type changed has one for each type.';
COMMENT ON COLUMN lockstep.sync_column.key IS 'The API''s own id of the field, which survives a rename.';
COMMENT ON COLUMN lockstep.sync_column.path IS 'Where the value lies in the record.';
COMMENT ON COLUMN lockstep.sync_column.column_name IS 'Empty: the table had no room for it; its values are in _raw only.';
COMMENT ON COLUMN lockstep.sync_column.filled IS 'Rows from before the column have their value.';
COMMENT ON COLUMN lockstep.sync_column.fill_after IS 'How far the filling is, as the id of a row.';

CREATE TABLE lockstep.sync_log (
    id          bigserial   PRIMARY KEY,
    sync_id     uuid        NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    kind        text        NOT NULL,
    collection  text        NOT NULL DEFAULT '',
    outcome     text        NOT NULL DEFAULT '',
    message     text        NOT NULL DEFAULT '',
    payload     jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX sync_log_sync ON lockstep.sync_log (sync_id, id);
COMMENT ON TABLE  lockstep.sync_log IS 'What the syncs did: backfills, polls that failed, sweeps, schema changes, pauses. Kept for 30 days.';
COMMENT ON COLUMN lockstep.sync_log.kind IS 'backfill, sweep, schema, pause, parked, …';
COMMENT ON COLUMN lockstep.sync_log.outcome IS 'started, completed, held, failed, …';
COMMENT ON COLUMN lockstep.sync_log.payload IS 'The figures, by kind. Never data of records.';

CREATE TABLE lockstep.tombstone (
    sync_id     uuid        NOT NULL,
    collection  text        NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    version     timestamptz,
    gone_at     timestamptz,
    seen_at     timestamptz NOT NULL,
    reason      text        NOT NULL,
    deleted_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sync_id, collection, id)
);
COMMENT ON TABLE  lockstep.tombstone IS 'Records that the API has deleted. An older version of them that comes late does not bring them back.';
COMMENT ON COLUMN lockstep.tombstone.id IS 'The API''s id.';
COMMENT ON COLUMN lockstep.tombstone.version IS 'When the API says that it was deleted; NULL: it does not say.';
COMMENT ON COLUMN lockstep.tombstone.gone_at IS 'When it was looked for and not found; NULL: the API told of the deletion.';
COMMENT ON COLUMN lockstep.tombstone.seen_at IS 'When the API told of the deletion last.';
COMMENT ON COLUMN lockstep.tombstone.reason IS 'event, flag, feed, not_found, sweep.';

CREATE TABLE lockstep.sync_parked (
    sync_id     uuid        NOT NULL,
    collection  text        NOT NULL,
    id          text        COLLATE "C" NOT NULL,
    record      jsonb       NOT NULL,
    data        bytea,
    reason      text        NOT NULL,
    attempts    integer     NOT NULL DEFAULT 1,
    parked_at   timestamptz NOT NULL DEFAULT now(),
    tried_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sync_id, collection, id)
);
COMMENT ON TABLE  lockstep.sync_parked IS 'Records that the mirror table refused, for example by a foreign key or a check of yours. They are tried again after 5 seconds, then after twice that, up to an hour.';
COMMENT ON COLUMN lockstep.sync_parked.record IS 'Version, rank and time of the record.';
COMMENT ON COLUMN lockstep.sync_parked.data IS 'The API''s JSON; NULL for a delete.';
COMMENT ON COLUMN lockstep.sync_parked.reason IS 'What Postgres said.';

-- +goose Down

DROP TABLE lockstep.sync_parked, lockstep.tombstone, lockstep.sync_log, lockstep.sync_column, lockstep.sync_state, lockstep.sync;
