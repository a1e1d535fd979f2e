-- Notifications that a person has sent again, among them delivered ones, which no other index of what is due has.
CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_resending ON notifications (due_at) WHERE resending_since IS NOT NULL;
