"""The web process: a bare ASGI application over the flows. It decides nothing about orders."""
