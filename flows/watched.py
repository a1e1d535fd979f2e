"""A watched payment whose object names another payment that is known here: the object is that payment's."""

from __future__ import annotations

from functools import partial

import structlog
from msgspec.structs import replace

from core.errors import UnknownAccount
from core.evidence import Evidence, Paid, Refunded, Source
from core.lifecycle import named_payment, on_query, other_named
from core.order import Origin, Payment
from flows.commit import commit_evidence
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.accounts import find_names_beside
from storage.postgres.payments import find_payments_by_ids

log = structlog.get_logger()


async def settle_named(
    resources: Resources, account: Account, payment: Payment, evidence: Evidence, by: Source
) -> Evidence:
    """The evidence of a watched payment as it is to be committed: under the number of the payment that it is about.

    An id in the object that names another payment beats the watch. The money is committed to that payment first; then
    the evidence, under its number, opens a case about the watched one, which it does not pay.
    """
    if not set(evidence.every_id) <= {payment.out_trade_no, payment.channel_reference, payment.channel_transaction_id}:
        found = await find_payments_by_ids(resources.db, account.config.name, evidence.every_id)
        other = other_named(payment, evidence, found)
        if other is not None:
            log.warning("watch_names_another", account=account.config.name, out_trade_no=payment.out_trade_no)
            named = replace(evidence, out_trade_no=other.out_trade_no)
            if isinstance(named, Paid | Refunded) and other.has_object(*evidence.every_id):
                await _commit_money(resources, account, other, named, by)
            return named
    return await _settle_beside(resources, account, evidence, by) if isinstance(evidence, Paid | Refunded) else evidence


async def is_named_beside(resources: Resources, account: Account, evidence: Evidence) -> bool:
    """Whether the object of a watched payment names one of ours under another name of its account: then its callback
    alone pays nothing.
    """
    return await _find_beside(resources, account, evidence) is not None


async def _settle_beside(
    resources: Resources, account: Account, evidence: Paid | Refunded, by: Source
) -> Paid | Refunded:
    """The same for a payment of ours under another name of the account. Money that it has taken is its own: the watch
    then claims the transaction in vain. Otherwise the evidence is another account's.
    """
    other = await _find_beside(resources, account, evidence)
    if other is None:
        return evidence
    log.warning("watch_names_another", account=account.config.name, out_trade_no=other.out_trade_no)
    beside = replace(evidence, channel_account=other.channel_account, out_trade_no=other.out_trade_no)
    try:
        owner = await resources.accounts.get(other.channel_account)
    except UnknownAccount:  # removed, or its credentials do not open: a person has to look
        return beside
    paid = await _commit_money(resources, owner, other, beside, by)
    return evidence if paid.channel_transaction_id == evidence.channel_transaction_id else beside


async def _find_beside(resources: Resources, account: Account, evidence: Evidence) -> Payment | None:
    """A payment of ours under another name of this account, that one of the ids names."""
    name = account.config.name
    for beside in await find_names_beside(resources.db, name) if evidence.channel_account == name else ():
        found = await find_payments_by_ids(resources.db, beside, evidence.every_id)
        named = named_payment(evidence.every_id, found)
        if named is not None and named.origin is Origin.OURS:
            return named
    return None


async def _commit_money(
    resources: Resources, account: Account, payment: Payment, evidence: Paid | Refunded, by: Source
) -> Payment:
    """Commit money to the payment that its object names; the payment as it is then."""
    decide = partial(on_query, key=payment.key, evidence=evidence, rules=account.rules, by=by)
    state = (await commit_evidence(resources, payment.order_no, decide)).state_after
    return (None if state is None else state.payment(payment.key)) or payment
