"""The payment that evidence is about, where it has several ids: the merchant's numbers and the channel's own.

Numbers of watched payments are the merchant's, and may be short: `1001` may be the number of one payment and the
customer of another. Our numbers are nobody else's, and a channel's id names one object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.evidence import Evidence
from core.order import Origin, Payment

_BY_NUMBER = 2
"""Rank of a watched payment that only its number names."""


def named_payment(ids: Sequence[str], found: Mapping[str, Payment]) -> Payment | None:
    """The payment that a message or a row with these ids is about, of those `found` by them; None if there is none.

    One of ours comes first, then one that is watched by an id of this very object, then the first that has its number.
    """
    named = [found[id_] for id_ in ids if id_ in found]
    return min(named, key=lambda payment: _rank(payment, ids), default=None)


def is_surely_named(payment: Payment, ids: Sequence[str]) -> bool:
    """Whether a payment that was found by one of these ids is meant, at whatever account: a watched number is not."""
    return _rank(payment, ids) < _BY_NUMBER


def other_named(payment: Payment, evidence: Evidence, found: Mapping[str, Payment]) -> Payment | None:
    """Another payment that the object of this watched payment names, of those `found` by its ids; or None.

    The watch is only its merchant's claim, so another payment that is known here beats it. Where the object also has
    the number of the watched payment, only one of ours does: then the other number may be a customer.
    """
    others = {id_: other for id_, other in found.items() if other.key != payment.key}
    other = named_payment(evidence.every_id, others)
    has_number = payment.channel_reference not in (None, payment.out_trade_no) and payment.out_trade_no in evidence.ids
    return None if other is None or (has_number and other.origin is Origin.WATCHED) else other


def _rank(payment: Payment, ids: Sequence[str]) -> int:
    if payment.origin is Origin.OURS:
        return 0
    own_ids = (payment.channel_reference, payment.channel_transaction_id)
    return 1 if any(id_ in ids for id_ in own_ids if id_ is not None) else _BY_NUMBER
