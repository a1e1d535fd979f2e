"""Simulated shoppers: the shop that places orders, and a small browser."""
