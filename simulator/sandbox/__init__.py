"""The sandbox channel: `channel` (accounts, callbacks, operations) and `wire` (formats, signatures)."""
