"""Stripe: `adapter` is the channel, the other modules are its parts."""
