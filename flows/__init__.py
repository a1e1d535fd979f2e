"""Flows of api and worker over channels and storage, one file a flow. Each one observes, decides and commits.

    place         an order and its payments: arm before you call
    create        a payment at its channel, and its checkout
    callback      verify, store, confirm within a budget, acknowledge; and the compensation
    query         the delayed query, after 1, 4, 9, 16 … minutes
    refresh       a query at the request of a user or an operator
    close         the deadline: query, close at the channel, query again
    accept        an operator accepts late money
    refund        request a refund once, query it until it is definite
    notify        notify the merchant until it answers 2xx; `egress` decides which addresses may be called
    sweep         overdue rows in Postgres, whatever happened to Redis
    duties        periodic work that one worker does for all of them
    rearm         arm Redis again from Postgres
    undelivered   callbacks that a channel could not deliver
    reconcile/    a channel's statement against our payments

They share `ask` (query a payment and commit the result), `commit` (a decision through the one door, and what follows
the commit) and `channel_call` (every call of a channel, under its account's rate and breaker).
"""
