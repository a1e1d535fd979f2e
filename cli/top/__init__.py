"""`nodrop top`."""
