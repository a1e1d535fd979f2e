"""The web process: an ASGI application over the flows. It decides nothing about orders.

    __main__      settings, resources, server, until SIGTERM
    application   the routes, the objects that handlers share, and the tasks beside them
    routes        the whole surface as one table
    v1/           handlers for the merchant's backend: JSON
    pages/        handlers for buyers: the order's page, its state and its stream
    console/      handlers for operators, at /ops where OPS is on: pages
    callbacks     the handler for channels
    ops           handlers for operators: health, metrics, OpenAPI
    context       the objects that handlers share; `limits` and `refreshes` are two of them
    http/         HTTP itself: server, ASGI, requests, responses, problems, OpenAPI. It knows no order

Imports point down this list.
"""
