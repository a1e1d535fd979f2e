"""The sandbox channel's side of the wire."""
