"""The sandbox's credentials."""

from __future__ import annotations

from typing import Annotated

import msgspec

from channels.description import AccountDescription

Id = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z_\-|*.:]{1,128}\Z")]
_KeyId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_\-]{1,32}\Z")]


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keys`: key id → secret. The first signs, every one verifies, so keys are rotated without a gap."""

    merchant_id: Id
    keys: Annotated[dict[_KeyId, str], msgspec.Meta(min_length=1)]


DESCRIPTION = AccountDescription(
    credentials=Credentials,
    shapes={
        "merchant_id": "the merchant's id at the sandbox, such as m-1001",
        "keys": "key id → secret of at least 32 characters; the first signs, every one verifies",
    },
    identity=("merchant_id",),
    merchant=("merchant_id",),
    request_keys=("merchant_id", "keys"),
    response_keys=("keys",),
    rotated=("keys",),
)
