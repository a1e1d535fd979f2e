"""State that outlives a process. Postgres holds it, Redis holds reminders; without Redis work is late and not lost."""
