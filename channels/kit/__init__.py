"""Tools that several adapters use, each of which knows no channel."""
