"""Alipay: `channel` (accounts, callbacks), `operations` (calls), `wire` (formats) and `keys`."""
