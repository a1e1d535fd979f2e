-- The age of a password: one that was printed for somebody opens nothing after three days.

ALTER TABLE operators ADD COLUMN password_at timestamptz NOT NULL DEFAULT now();
