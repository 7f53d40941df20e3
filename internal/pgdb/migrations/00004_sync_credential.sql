-- +goose Up

ALTER TABLE lockstep.sync ADD COLUMN credential bytea, ADD COLUMN tokens bytea;
COMMENT ON COLUMN lockstep.sync.credential IS 'Sealed with the node''s key; NULL for those of the configuration file.';
COMMENT ON COLUMN lockstep.sync.tokens IS 'Tokens that the API has given out and that rotate, sealed with the node''s key.';

-- +goose Down

ALTER TABLE lockstep.sync DROP COLUMN credential, DROP COLUMN tokens;
