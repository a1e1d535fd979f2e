"""Stripe: `channel` (accounts, callbacks), `operations`, `payments`, `lists`, `objects` and `wire` (formats)."""
