-- +goose Up

CREATE TABLE lockstep.database_definition (
    name        text        PRIMARY KEY CHECK (name <> ''),
    definition  jsonb       NOT NULL DEFAULT '{}',
    url         bytea       NOT NULL,
    removed_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  lockstep.database_definition IS 'Databases that were made through the API. Changed through the API, not by hand: a running node does not watch this table.';
COMMENT ON COLUMN lockstep.database_definition.definition IS 'The definition as in the configuration file, without the URL.';
COMMENT ON COLUMN lockstep.database_definition.url IS 'How it is reached, with the password: sealed with the node''s key; empty when it was removed.';
COMMENT ON COLUMN lockstep.database_definition.removed_at IS 'It was deleted then; the row is there until retention has taken its changes out of the stream.';

-- +goose Down

DROP TABLE lockstep.database_definition;
