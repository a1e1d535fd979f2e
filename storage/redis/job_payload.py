"""Payload of a job in Redis: arq's own dictionary as JSON. Never pickle: reading that runs code of its writer.

    t   try it starts from, or null       a   arguments          et  when it was enqueued, Unix milliseconds
    f   name of the function              k   named arguments        (the enqueuer's clock; shown, never compared)

Any other payload cannot be decoded, so a forged one runs at most one of our own idempotent jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

EXPIRES_EXTRA_MS = 365 * 86_400_000
"""Time from the due time to the expiry of a payload: a year, since an expired payload is a lost job."""

PAYLOAD_BYTES_MAX = 65_536
_YEAR_9999_MS = 253_402_300_799_000

_Argument = str | int


class Payload(msgspec.Struct, forbid_unknown_fields=True):
    """Bounded where arq or Python's datetime would raise and end the worker's loop."""

    f: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    a: Annotated[list[_Argument], msgspec.Meta(max_length=20)]
    k: dict[str, _Argument]
    et: Annotated[int, msgspec.Meta(ge=0, le=_YEAR_9999_MS)]
    t: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None


encode_job: Callable[[dict[str, Any]], bytes] = msgspec.json.Encoder(enc_hook=lambda value: type(value).__name__).encode
"""The `job_serializer` of arq. Exceptions, which arq puts into its results, are written as their type."""


def read_payload(payload: bytes) -> Payload:
    """Read what a job is to run.

    Raises:
        ValueError: not a payload of ours.
        RecursionError: nor is this.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError("the payload is too large")
    return _decoder.decode(payload)


def decode_job(payload: bytes) -> dict[str, Any]:
    """The `job_deserializer` of arq; it treats a job as undecodable for which this raises."""
    return msgspec.structs.asdict(read_payload(payload))


_decoder = msgspec.json.Decoder(Payload)
