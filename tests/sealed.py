"""A sealer for tests that need any, and what lies sealed in the inbox."""

from typing import NamedTuple

import msgspec

from storage.postgres.callback_bodies import open_body
from storage.postgres.database import Database
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
