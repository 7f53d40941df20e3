-- +goose Up

COMMENT ON SCHEMA lockstep IS 'Lockstep: definitions and state, readable by SQL. Start with the views status and lag.';

CREATE TABLE lockstep.consumer (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL UNIQUE CHECK (name <> ''),
    kind        text        NOT NULL,
    database    text        NOT NULL,
    definition  jsonb       NOT NULL,
    paused      boolean     NOT NULL DEFAULT false,
    managed_by  text        NOT NULL DEFAULT 'api',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  lockstep.consumer IS 'Consumers: who reads the changes. Changed through the API or the configuration, not by hand: a running node does not watch this table.';
COMMENT ON COLUMN lockstep.consumer.id IS 'The name in the API and in the stream''s state; never given twice.';
COMMENT ON COLUMN lockstep.consumer.name IS 'The name for people, unique, also taken by the API in place of the id.';
COMMENT ON COLUMN lockstep.consumer.kind IS 'http, webhook, postgres, nats, …: how it is delivered.';
COMMENT ON COLUMN lockstep.consumer.database IS 'The database in the configuration whose changes it reads.';
COMMENT ON COLUMN lockstep.consumer.definition IS 'The definition as in the configuration file: tables, actions, filter, ack_wait, …';
COMMENT ON COLUMN lockstep.consumer.paused IS 'Nothing is handed out while it is true.';
COMMENT ON COLUMN lockstep.consumer.managed_by IS 'api, or file for those of the configuration file.';

CREATE TABLE lockstep.token (
    id            text        PRIMARY KEY,
    name          text        NOT NULL,
    hash          bytea       NOT NULL,
    scopes        text[]      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz
);
COMMENT ON TABLE  lockstep.token IS 'API tokens, made by lockstep token create. The tokens themselves are not kept.';
COMMENT ON COLUMN lockstep.token.id IS 'The public part of the token.';
COMMENT ON COLUMN lockstep.token.hash IS 'A hash of the secret part.';
COMMENT ON COLUMN lockstep.token.scopes IS 'What the token may do.';
COMMENT ON COLUMN lockstep.token.expires_at IS 'Refused from then on; NULL: never.';
COMMENT ON COLUMN lockstep.token.last_used_at IS 'Written now and then, not at every call.';
COMMENT ON COLUMN lockstep.token.revoked_at IS 'Refused since then; NULL: not revoked.';

CREATE TABLE lockstep.audit (
    id      bigserial   PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text        NOT NULL,
    action  text        NOT NULL,
    target  text        NOT NULL,
    before  jsonb,
    after   jsonb,
    remote  text
);
CREATE INDEX audit_at ON lockstep.audit (at);
COMMENT ON TABLE  lockstep.audit IS 'Who changed what through the API.';
COMMENT ON COLUMN lockstep.audit.actor IS 'The name of the token, or local for calls without one.';
COMMENT ON COLUMN lockstep.audit.action IS 'For example consumer.create.';
COMMENT ON COLUMN lockstep.audit.target IS 'The name or id of what was changed.';
COMMENT ON COLUMN lockstep.audit.before IS 'What it was, without secrets; NULL when it was made.';
COMMENT ON COLUMN lockstep.audit.after IS 'What it became, without secrets; NULL when it was deleted.';
COMMENT ON COLUMN lockstep.audit.remote IS 'The address that the call came from.';

CREATE TABLE lockstep.database_status (
    database       text        PRIMARY KEY,
    connected      boolean     NOT NULL,
    capture        text        NOT NULL DEFAULT '',
    confirmed_lsn  pg_lsn,
    received_lsn   pg_lsn,
    last_seq       bigint      NOT NULL DEFAULT 0,
    lag_bytes      bigint      NOT NULL DEFAULT 0,
    last_error     text        NOT NULL DEFAULT '',
    updated_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  lockstep.database_status IS 'What capture reported last, one row per database. The view status reads easier.';
COMMENT ON COLUMN lockstep.database_status.database IS 'The name in the configuration.';
COMMENT ON COLUMN lockstep.database_status.connected IS 'Capture had its replication connection when it reported.';
COMMENT ON COLUMN lockstep.database_status.capture IS 'The way of capture: wal, changelog, poll, notify.';
COMMENT ON COLUMN lockstep.database_status.confirmed_lsn IS 'Everything before it is in the stream, on disk; the slot lets go of it.';
COMMENT ON COLUMN lockstep.database_status.received_lsn IS 'How far the WAL has been received.';
COMMENT ON COLUMN lockstep.database_status.last_seq IS 'The seq of the last change in the stream.';
COMMENT ON COLUMN lockstep.database_status.lag_bytes IS 'WAL that is written and not yet confirmed.';
COMMENT ON COLUMN lockstep.database_status.last_error IS 'Why capture was last interrupted; empty when it was not.';
COMMENT ON COLUMN lockstep.database_status.updated_at IS 'When the row was reported; an old one means that no node runs.';

CREATE TABLE lockstep.consumer_status (
    consumer_id         uuid        PRIMARY KEY,
    name                text        NOT NULL,
    database            text        NOT NULL,
    paused              boolean     NOT NULL DEFAULT false,
    floor_seq           bigint      NOT NULL DEFAULT 0,
    last_seq            bigint      NOT NULL DEFAULT 0,
    pending             bigint      NOT NULL DEFAULT 0,
    in_flight           integer     NOT NULL DEFAULT 0,
    redelivered         bigint      NOT NULL DEFAULT 0,
    dead                bigint      NOT NULL DEFAULT 0,
    oldest_unacked_at   timestamptz,
    updated_at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  lockstep.consumer_status IS 'What delivery reported last, one row per consumer. The views status and lag read easier.';
COMMENT ON COLUMN lockstep.consumer_status.consumer_id IS 'The consumer''s id; consumers of the configuration file are here too.';
COMMENT ON COLUMN lockstep.consumer_status.paused IS 'Nothing is handed out.';
COMMENT ON COLUMN lockstep.consumer_status.floor_seq IS 'Every change up to this seq is acked, parked or filtered out.';
COMMENT ON COLUMN lockstep.consumer_status.last_seq IS 'The last change of the stream when this was reported.';
COMMENT ON COLUMN lockstep.consumer_status.pending IS 'Changes that wait to be handed out, as far as known.';
COMMENT ON COLUMN lockstep.consumer_status.in_flight IS 'Changes handed out and not yet acked.';
COMMENT ON COLUMN lockstep.consumer_status.redelivered IS 'Hand-outs after the first, since the consumer was made.';
COMMENT ON COLUMN lockstep.consumer_status.dead IS 'Dead letters that wait for a person.';
COMMENT ON COLUMN lockstep.consumer_status.oldest_unacked_at IS 'Commit time of the oldest change that is not acked; NULL when there is none.';
COMMENT ON COLUMN lockstep.consumer_status.updated_at IS 'When the row was reported; an old one means that no node runs.';

CREATE VIEW lockstep.status AS
SELECT 'database'::text AS kind,
       d.database       AS name,
       d.database       AS database,
       CASE
           WHEN d.updated_at < now() - interval '1 minute' THEN 'no report since ' || to_char(d.updated_at, 'YYYY-MM-DD HH24:MI:SS TZ')
           WHEN NOT d.connected THEN 'disconnected'
           WHEN d.last_error <> '' THEN 'capturing, after an interruption'
           ELSE 'capturing'
       END              AS state,
       concat_ws(', ',
           'seq ' || d.last_seq,
           pg_size_pretty(d.lag_bytes) || ' of WAL behind',
           nullif(d.last_error, '')) AS detail,
       d.updated_at     AS updated_at
FROM lockstep.database_status d
UNION ALL
SELECT 'consumer',
       c.name,
       c.database,
       CASE
           WHEN c.updated_at < now() - interval '1 minute' THEN 'no report since ' || to_char(c.updated_at, 'YYYY-MM-DD HH24:MI:SS TZ')
           WHEN c.paused THEN 'paused'
           WHEN c.in_flight > 0 THEN 'delivering'
           WHEN c.pending > 0 THEN 'waiting for workers'
           ELSE 'up to date'
       END,
       concat_ws(', ',
           c.pending || ' pending',
           c.in_flight || ' in flight',
           CASE WHEN c.dead > 0 THEN c.dead || ' dead' END),
       c.updated_at
FROM lockstep.consumer_status c;
COMMENT ON VIEW   lockstep.status IS 'How it goes: one row per database and consumer.';
COMMENT ON COLUMN lockstep.status.kind IS 'database or consumer.';
COMMENT ON COLUMN lockstep.status.state IS 'For people: capturing, disconnected, delivering, waiting for workers, up to date, paused, no report since ….';
COMMENT ON COLUMN lockstep.status.detail IS 'The numbers behind the state, and the last error.';

CREATE VIEW lockstep.lag AS
SELECT c.database                                     AS database,
       c.name                                         AS consumer,
       greatest(coalesce(d.last_seq, c.last_seq) - c.floor_seq, 0) AS changes,
       c.pending                                      AS pending,
       c.in_flight                                    AS in_flight,
       c.dead                                         AS dead,
       CASE WHEN c.oldest_unacked_at IS NOT NULL
            THEN greatest(now() - c.oldest_unacked_at, interval '0') END AS age,
       d.lag_bytes                                    AS capture_lag_bytes,
       c.updated_at                                   AS updated_at
FROM lockstep.consumer_status c
LEFT JOIN lockstep.database_status d USING (database);
COMMENT ON VIEW   lockstep.lag IS 'How far each consumer is behind its database.';
COMMENT ON COLUMN lockstep.lag.changes IS 'Changes of the stream after the last one up to which all are acked; those that the consumer filters out included.';
COMMENT ON COLUMN lockstep.lag.age IS 'How old the oldest change is that is not acked; NULL when there is none.';
COMMENT ON COLUMN lockstep.lag.capture_lag_bytes IS 'WAL that is not yet in the stream.';

-- +goose Down

DROP VIEW lockstep.lag, lockstep.status;
DROP TABLE lockstep.consumer_status, lockstep.database_status, lockstep.audit, lockstep.token, lockstep.consumer;
