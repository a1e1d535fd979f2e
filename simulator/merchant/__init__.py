"""The merchant's order service: `notifications` and their `signature`; `control` has the routes of its process."""
