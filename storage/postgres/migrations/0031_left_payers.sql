-- Orders that have a payer, by the end of their time: the worker erases those that a process of an earlier release has left.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_with_payer ON orders (expires_at) WHERE payer IS NOT NULL;
