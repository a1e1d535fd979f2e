"""The payment channels: one Protocol, one file for each channel, one HTTP client. Knows nothing of storage."""
