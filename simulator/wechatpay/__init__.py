"""WeChat Pay: `channel` (accounts, callbacks), `operations` (calls), `bodies`, `bills` and `wire` (signatures)."""
