"""HTTP without a framework: server, ASGI application, requests, responses, problems, OpenAPI. Knows no order."""
