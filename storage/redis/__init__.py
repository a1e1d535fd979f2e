"""Everything that is kept in Redis: delay queue, admission, parked callbacks, change messages. All may be lost."""
