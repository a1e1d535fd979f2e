"""The merchant's order service, which receives notifications, and its control API."""
