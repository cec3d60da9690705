ALTER TABLE partners DROP COLUMN resumed_at;
