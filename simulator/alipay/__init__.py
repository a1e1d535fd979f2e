"""Alipay's side of the wire."""
