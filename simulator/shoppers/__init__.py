"""Simulated shoppers: their `plan`, their `visits`, the `shop` that places orders, and a small `browser`."""
