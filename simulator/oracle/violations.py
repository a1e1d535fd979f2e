"""The invariants by name, and a broken one as the oracle reports it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Invariant(StrEnum):
    I1 = "I1 no loss"
    I2 = "I2 no false paid"
    I3 = "I3 one effect"
    I4 = "I4 legal moves"
    I5 = "I5 durable acknowledgement"
    I6 = "I6 conservation"
    I7 = "I7 no stuck work"
    I8 = "I8 bounded load"


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A broken invariant. `order_no` is empty if the order is not known."""

    invariant: Invariant
    order_no: str
    sentence: str
