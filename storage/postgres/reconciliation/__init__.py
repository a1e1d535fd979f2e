"""Runs of the reconciliation and the differences that they found."""
