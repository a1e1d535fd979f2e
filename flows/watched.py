"""A watched payment whose object names another payment that is known here: the object is that payment's."""

from __future__ import annotations

from functools import partial

import structlog
from msgspec.structs import replace

from core.evidence import Evidence, Paid, Refunded, Source
from core.lifecycle import on_query, other_named
from core.order import Payment
from flows.commit import commit_evidence
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.payments import find_payments_by_ids

log = structlog.get_logger()


async def settle_named(
    resources: Resources, account: Account, payment: Payment, evidence: Evidence, by: Source
) -> Evidence:
    """The evidence of a watched payment as it is to be committed: under the number of the payment that it is about.

    An id in the object that names another payment beats the watch. The money is committed to that payment first; then
    the evidence, under its number, opens a case about the watched one, which it does not pay.
    """
    if set(evidence.every_id) <= {payment.out_trade_no, payment.channel_reference, payment.channel_transaction_id}:
        return evidence
    found = await find_payments_by_ids(resources.db, account.config.name, evidence.every_id)
    other = other_named(payment, evidence, found)
    if other is None:
        return evidence
    log.warning("watch_names_another", account=account.config.name, out_trade_no=payment.out_trade_no)
    named = replace(evidence, out_trade_no=other.out_trade_no)
    if isinstance(named, Paid | Refunded) and other.has_object(*evidence.every_id):
        decide = partial(on_query, key=other.key, evidence=named, rules=account.rules, by=by)
        await commit_evidence(resources, other.order_no, decide)
    return named
