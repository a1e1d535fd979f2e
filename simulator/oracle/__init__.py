"""The invariants, checked from outside the product."""
