"""HTTP server, HTTP client and key tools of the simulator."""
