"""PayPal's side of the wire."""
