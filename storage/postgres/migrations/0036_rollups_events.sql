-- Events of money and of the close by time: the roll-ups read those of five minutes.
CREATE INDEX CONCURRENTLY IF NOT EXISTS order_events_of_money ON order_events (at)
    WHERE kind IN ('paid', 'paid_late', 'double_payment', 'closed');
