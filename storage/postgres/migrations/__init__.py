"""Numbered, applied in order, never edited after they were applied: `storage.migrate` checks."""
