"""Rate limit and breakers of every account: shared by all processes in Redis, or local while Redis is away."""
