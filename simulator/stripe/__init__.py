"""Stripe's side of the wire."""
