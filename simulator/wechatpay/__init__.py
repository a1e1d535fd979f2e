"""WeChat Pay: `channel` (accounts, callbacks, bill), `operations` (calls), `bodies` and `wire` (signatures)."""
