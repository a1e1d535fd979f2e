-- Orders of one amount, by age. A row is written once for each order: none of its columns changes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_by_amount ON orders (currency, amount, created_at, order_no);
