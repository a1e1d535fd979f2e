"""PayPal: `channel` (accounts, callbacks), `operations` (calls), `wire` (formats), `report` and `keys`."""
