"""Texts that no log may hold: secrets, tokens of pages, and what merchants, channels and buyers say about an order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from channels.credentials import secrets_of
from demo.stack import Stack
from storage.postgres.database import Database
from storage.sealing import Sealer
from tests.sealed import raw_callbacks

BUYERS = ("ttt***@example.com", "openid-of-a-simulated-buyer")
"""Buyers as the simulated channels name them."""

CHARACTERS_MIN = 8
"""A shorter text may be in a line by chance."""

PIECE_BYTES = 96
"""Long enough to be no field of a line of the log, which is JSON too."""

_TEXTS = """
SELECT page_token, subject, return_url, notify_url, metadata::text AS metadata,
       (SELECT string_agg(value, ' ') FROM jsonb_each_text(metadata)) AS value
  FROM orders WHERE order_no = ANY($1)"""
_NUMBERS = "SELECT out_trade_no FROM payments WHERE order_no = ANY($1)"
_BODIES = "SELECT body FROM notifications WHERE order_no = ANY($1) AND body <> ''"


async def leaks(stack: Stack, db: Database, order_nos: Sequence[str], logs: Iterable[bytes]) -> set[str]:
    """Kinds of texts that are in a log though they may be in none."""
    canaries = {
        "secret": [text.encode() for text in secrets(stack)],
        "buyer": [text.encode() for text in BUYERS],
        "order": await order_texts(db, order_nos),
        "raw body": await pieces_of_bodies(stack, db, order_nos),
    }
    contents = [content for content in logs if content]
    return {
        f"{kind}: {text!r}"
        for kind, texts in canaries.items()
        for text in texts
        if len(text) >= CHARACTERS_MIN and any(text in content for content in contents)
    }


def secrets(stack: Stack) -> list[str]:
    """API key, master key, notification secret, and the longest line of every secret of an account."""
    keys = [stack.api_key, stack.master_key.partition(":")[2], stack.notify_secret.removeprefix("whsec_")]
    accounts = [secrets_of(account.channel, account.credentials) for account in stack._opened.values()]
    return [*keys, *(max(text.splitlines(), key=len) for texts in accounts for text in texts)]


async def order_texts(db: Database, order_nos: Sequence[str]) -> list[bytes]:
    """Everything that the merchant sent with the orders, and the tokens of their pages."""
    rows = await db.fetch(_TEXTS, order_nos)
    return [text.encode() for row in rows for text in row.values() if text]


async def pieces_of_bodies(stack: Stack, db: Database, order_nos: Sequence[str]) -> list[bytes]:
    """A piece from the middle of every raw callback and every notification."""
    numbers = {row["out_trade_no"] for row in await db.fetch(_NUMBERS, order_nos)}
    stored = await raw_callbacks(db, Sealer.from_setting(stack.master_key))
    bodies = [callback.body for callback in stored if callback.out_trade_no in numbers]
    bodies += [row["body"] for row in await db.fetch(_BODIES, order_nos)]
    return [body[len(body) // 2 :][:PIECE_BYTES] for body in bodies]
