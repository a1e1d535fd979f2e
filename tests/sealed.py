"""A sealer for tests that need any, what lies sealed in the inbox, and codes of operators."""

from typing import NamedTuple

import msgspec
import pyotp

from storage.postgres.callback_bodies import open_body
from storage.postgres.database import Database
from storage.postgres.operators import seal_totp
from storage.sealing import Sealer, new_master_key

SEALER = Sealer.from_setting(new_master_key("test"))


class RawCallback(NamedTuple):
    """A stored callback, opened."""

    out_trade_no: str
    headers: dict[str, str]
    body: bytes


async def raw_callbacks(db: Database, sealer: Sealer = SEALER) -> list[RawCallback]:
    """All of the inbox, oldest first."""
    rows = await db.fetch(
        """SELECT out_trade_no, headers::text, channel_account AS account, notification_id, body, sealed_under
             FROM callbacks ORDER BY received_at"""
    )
    return [
        RawCallback(
            row["out_trade_no"],
            msgspec.json.decode(row["headers"]),
            open_body(
                sealer,
                account=row["account"],
                notification_id=row["notification_id"],
                body=row["body"],
                sealed_under=row["sealed_under"],
            ),
        )
        for row in rows
    ]


async def switch_codes_on(db: Database, sealer: Sealer, operator: str) -> str:
    """Let this operator sign in with codes from now on; their secret."""
    secret = pyotp.random_base32()
    sealed = seal_totp(sealer, operator, secret)
    assert secret.encode() not in sealed
    await db.execute("UPDATE operators SET totp = $2 WHERE name = $1", operator, sealed)
    return secret
