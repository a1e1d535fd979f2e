"""The channels' far side, the merchant's order service and the shoppers: the oracle that proves nodrop loses nothing.

Nothing here is imported by nodrop, and nothing here imports it: signing, parsing and rules are written a second time,
so that a mistake in one is seen by the other. Everything runs over real HTTP with real signatures and seeded faults.
"""
