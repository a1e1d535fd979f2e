"""Records of delivered callbacks: how each was sent, which were acknowledged, and counts for each payment."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class SentAs(StrEnum):
    """Kind of a delivery: genuine, or with one fault."""

    GENUINE = "genuine"
    WRONG_AMOUNT = "wrong_amount"
    STALE = "stale"
    FORGED = "forged"
    FORGED_CHECKSUM = "forged_checksum"


class AcknowledgedCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that nodrop acknowledged, and has to have stored."""

    merchant_id: str
    out_trade_no: str
    callback_id: str
    body_sha256: str
    sent_as: SentAs
    at: datetime


class Tally(msgspec.Struct, kw_only=True):
    """Counts of deliveries for one payment. `never_generated` and `lost` count events that were not sent."""

    never_generated: int = 0
    lost: int = 0
    late: int = 0
    reordered: int = 0
    doubled: int = 0
    sent: int = 0
    blocked: int = 0
    wrong_amount: int = 0
    stale: int = 0
    acknowledged: int = 0
    refused: int = 0
    exhausted: int = 0
    forged: int = 0
    forged_acknowledged: int = 0
    forged_checksum: int = 0
    last_status: int | None = None
