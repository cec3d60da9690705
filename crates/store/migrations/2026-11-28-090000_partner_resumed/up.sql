-- When the last suspension ended: the days of failure after which a webhook is disabled count from then.
ALTER TABLE partners ADD COLUMN resumed_at timestamptz;
