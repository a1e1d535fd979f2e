"""The sandbox channel: `adapter` is the channel."""
