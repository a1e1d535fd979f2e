"""Flows of api and worker over channels and storage, one file a flow. Each one observes, decides and commits.

    place         an order and its payments: arm before you call; `choice` has the accounts that a buyer may choose
    create        a payment at its channel; `checkout` opens its checkout, and a fresh one when that has ended
    callback      verify, store, confirm within a budget, acknowledge; `compensation` does it later, until it is done
    query         the delayed query, after 1, 4, 9, 16 … minutes
    capture       take the money that a buyer has approved, once no other payment of the order has any
    refresh       a query at the request of a user or an operator
    close         the deadline: query, close at the channel, query again
    accept        an operator accepts late money; `attach` gives money that was unknown here to an order
    erase         an operator erases what is personal about an order
    refund        request a refund once, query it until it is definite; `refund_notice` reads what a message says of one
                  `refund_request` is an operator's, with a second one above a limit
    dispute       disputes: read from the channel and committed for each of their payments
    notify        notify the merchant until it answers 2xx
    resend        an operator sends notifications again; `endpoints` pauses and resumes where they are sent
    let_go        let notifications go that have waited for their endpoint or their turn
    sweep         overdue rows in Postgres, whatever happened to Redis
    take_over     leases of a process that is gone
    alert         look for conditions that a person must hear of; `alert_messages` sends them to `ALERT_URL`
    duties        periodic work that one worker does for all of them
    rearm         arm Redis again from Postgres
    undelivered   callbacks that a channel could not deliver
    retention     delete what is over and old
    sign_in       an operator signs in to the console; `operators` adds and resets them
    rollup        sums of what happened, by buckets; `silence` finds accounts whose callbacks stopped, and `overview`
                  reads both beside what is open now
    reconcile/    a channel's statement against our payments
    closings      days of accounts: their money, differences and sign-off
    cases         operators take cases and resolve them; `case_resolution` does it by an act that fits, and `guides` has
                  the texts about what to do
    account_switch  an operator switches an account off or on
    ending        certificates and keys that end soon; `account_facts` is one account for an operator

Callbacks that are not usual: `combined` is about several payments, `watched` about one of another system, `unhandled`
has to wait, `unstored` is not kept, `parked` came while Postgres was down, `unanswered` pays without a query. `worlds`
keeps test money apart from real money. `refusals` notes those that prove nothing. `explanation`, `explanation_notes`
and `explanation_view` say what a message proves, `callback_explanation` what one that came does.

Notifications go where `egress` allows, to hosts that `merchant_hosts` has not parked, over `merchant_http`; `signers`
has the secrets that sign them.

All flows share `ask` (query a payment and commit the result), `commit` (a decision through the one door, and what
follows the commit) and `channel_call` (every call of a channel, under its account's rate and breaker).
"""
