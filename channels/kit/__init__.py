"""Tools that several adapters use; none of them knows a channel."""
