"""The service as most teams write it: FastAPI, SQLAlchemy, Celery, httpx. Tuned, and honest about what it stores.

A callback is stored in an inbox before it is acknowledged, and confirmed by a query in a Celery task; an order has a
version column; a task queries a payment after 1, 4, 9 … minutes; notifications are signed and tried again. What it does
not have, nodrop is for: a payment whose task is lost, a crash between a commit and its task, limits of channels.

settings models channel                     what both processes share
web tasks                                   uvicorn bench.peers.usual.web:app, celery -A bench.peers.usual.tasks worker
"""
