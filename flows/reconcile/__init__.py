"""Reconciliation of a channel's statement with our payments: one run, its rows, and the daily schedule."""
