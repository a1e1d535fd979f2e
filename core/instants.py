"""Instants in UTC, whatever zone a channel writes them in and a database session shows them in."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec


def in_utc(struct: msgspec.Struct) -> None:
    """Turn the instants of a new struct to UTC, in its `__post_init__`."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, datetime) and value.tzinfo not in (UTC, None):
            msgspec.structs.force_setattr(struct, name, value.astimezone(UTC))
