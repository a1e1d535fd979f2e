"""A genuine callback whose content cannot be read: it is stored all the same, with every id that could be read."""

from __future__ import annotations

from hashlib import sha256

from channels.base import Callback
from core.evidence import UNREADABLE, Unclear, distinct_ids


def unreadable_callback(
    account: str, body: bytes, reason: str, *, notification_id: str = "", ids: tuple[str, ...] = ()
) -> Callback:
    """The callback. Without a readable id of the message it is known by the hash of its body, the same in a resend."""
    number, *others = clean_ids(*ids) or ("",)
    evidence = Unclear(channel_account=account, out_trade_no=number, ids=tuple(others), reason=UNREADABLE)
    return Callback(
        notification_id=notification_id or body_id(body),
        evidence=evidence,
        unreadable=reason or "body",
    )


def body_id(body: bytes) -> str:
    """The id of a message that names none."""
    return f"sha256:{sha256(body).hexdigest()}"


def clean_ids(*ids: object) -> tuple[str, ...]:
    """Those of any values that can be ids of a payment, each once, in their order."""
    return distinct_ids(*(id_ for id_ in ids if isinstance(id_, str)))
