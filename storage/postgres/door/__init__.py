"""The one door through which an order changes: load, decide, compare-and-set in one statement."""
