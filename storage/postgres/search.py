"""Orders by any number that a person may hold: the merchant's, ours, the channel's, or the link of the order's page.

Each number is looked up in an index of its own; only an order number matches by its beginning too. A page's link is
a secret: it is never returned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

import msgspec

from core.order import ORDER_NO
from storage.postgres.database import Database, storable

NUMBER_CHARACTERS_MAX = 300
MATCHES_MAX = 20
"""For each kind of number: a reference may be watched by several orders, and many orders begin alike."""

PREFIX_CHARACTERS_MIN = 2
WALKED_MAX = 5000


class NumberKind(StrEnum):
    """The kind of number that has matched, strongest first."""

    ORDER_NO = "order_no"
    ORDER_PAGE = "order_page"
    OUT_TRADE_NO = "out_trade_no"
    CHANNEL_TRANSACTION_ID = "channel_transaction_id"
    CHANNEL_REFERENCE = "channel_reference"
    REFUND_NO = "refund_no"
    CHANNEL_REFUND_NO = "channel_refund_no"
    NOTIFICATION_ID = "notification_id"
    CHANNEL_NOTIFICATION_ID = "channel_notification_id"
    CALLBACK_ID = "callback_id"
    DISPUTE_ID = "dispute_id"
    CASE_ID = "case_id"
    ORDER_NO_PREFIX = "order_no_prefix"


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """A number that was found. `order_no` None: a callback or a case that belongs to no order here.

    `number` is what matched, or the whole order number of which the beginning matched; empty for a page's link.
    """

    kind: NumberKind
    number: str
    order_no: str | None
    account: str | None = None
    callback_id: str | None = None

    @property
    def is_exact(self) -> bool:
        return self.kind is not NumberKind.ORDER_NO_PREFIX


# Without its account a number is looked up at each account: a key begins with the account, and there are few. OFFSET
# keeps the planner from joining the other way round.
_AT_EACH_ACCOUNT = """
SELECT '{kind}' AS kind, p.{column} AS number, p.order_no, p.channel_account, NULL::text AS callback_id
  FROM accounts a
 CROSS JOIN LATERAL (SELECT * FROM payments
                      WHERE channel_account = a.name AND {column} = $1 LIMIT {max} OFFSET 0) AS p"""

_OF_CALLBACK = """
SELECT '{kind}', {number}, p.order_no, c.channel_account, c.id::text
  FROM {callbacks} AS c
  LEFT JOIN LATERAL (SELECT * FROM payments
                      WHERE channel_account = c.channel_account AND out_trade_no = c.out_trade_no
                      LIMIT 1) AS p ON true"""

_EXACT = f"""
SELECT '{NumberKind.ORDER_NO}' AS kind, order_no AS number, order_no, NULL AS channel_account, NULL AS callback_id
  FROM orders WHERE order_no = $1
UNION ALL
SELECT '{NumberKind.ORDER_PAGE}', '', order_no, NULL, NULL FROM orders WHERE page_token = $2
UNION ALL {_AT_EACH_ACCOUNT.format(kind=NumberKind.OUT_TRADE_NO, column="out_trade_no", max=MATCHES_MAX)}
UNION ALL
(SELECT '{NumberKind.CHANNEL_TRANSACTION_ID}', channel_transaction_id, order_no, channel_account, NULL
   FROM payments WHERE channel_transaction_id = $1 LIMIT {MATCHES_MAX})
UNION ALL {_AT_EACH_ACCOUNT.format(kind=NumberKind.CHANNEL_REFERENCE, column="channel_reference", max=MATCHES_MAX)}
UNION ALL
SELECT '{NumberKind.REFUND_NO}', refund_no, order_no, channel_account, NULL FROM refunds WHERE refund_no = $1
UNION ALL
(SELECT '{NumberKind.CHANNEL_REFUND_NO}', channel_refund_no, order_no, channel_account, NULL
   FROM refunds WHERE channel_refund_no = $1 LIMIT {MATCHES_MAX})
UNION ALL
SELECT '{NumberKind.CHANNEL_REFUND_NO}', $1, order_no, channel_account, NULL FROM find_payments_by_channel_refund($1)
UNION ALL
SELECT '{NumberKind.NOTIFICATION_ID}', id, order_no, NULL, NULL FROM notifications WHERE id = $1
UNION ALL {
    _OF_CALLBACK.format(
        kind=NumberKind.CHANNEL_NOTIFICATION_ID,
        number="c.notification_id",
        callbacks=f'''accounts a CROSS JOIN LATERAL (
               SELECT * FROM callbacks
                WHERE channel_account = a.name AND notification_id = $1 LIMIT {MATCHES_MAX} OFFSET 0)''',
    )
}
UNION ALL {
    _OF_CALLBACK.format(
        kind=NumberKind.CALLBACK_ID, number="c.id::text", callbacks="(SELECT * FROM callbacks WHERE id = $3::uuid)"
    )
}
UNION ALL
SELECT '{NumberKind.CALLBACK_ID}', id::text, order_no, channel_account, id::text
  FROM refused_callbacks WHERE id = $3::uuid
UNION ALL
SELECT '{NumberKind.CHANNEL_NOTIFICATION_ID}', r.claimed_id, r.order_no, r.channel_account, r.id::text
  FROM accounts a
 CROSS JOIN LATERAL (SELECT * FROM refused_callbacks
                      WHERE channel_account = a.name AND claimed_id = $1 LIMIT {MATCHES_MAX} OFFSET 0) AS r
UNION ALL
(SELECT '{NumberKind.DISPUTE_ID}', dispute_id, order_no, channel_account, NULL
   FROM disputes WHERE dispute_id = $1 LIMIT {MATCHES_MAX})
UNION ALL
SELECT '{NumberKind.CASE_ID}', id::text, order_no, channel_account, NULL FROM cases WHERE id = $4::bigint"""

# By the primary key, whatever its collation: all that begin alike lie between these bounds, with a few that differ in
# case or marks alone.
_PREFIX = f"""
SELECT order_no
  FROM (SELECT order_no FROM orders
         WHERE order_no > $1::text AND order_no < greatest($1 || 'zzzz', $1 || 'yyyy', $1 || U&'\\9FA5')
         ORDER BY order_no
         LIMIT {WALKED_MAX}) AS near
 WHERE starts_with(order_no, $1)
 ORDER BY order_no
 LIMIT {MATCHES_MAX}"""

_LINK = re.compile(r"/o/([0-9A-Za-z_\-]{16,64})(?:[/?#].*)?$", re.ASCII)
_TOKEN = re.compile(r"[0-9A-Za-z_\-]{22}", re.ASCII)
_CASE_ID = re.compile(r"#?([1-9][0-9]{0,17})", re.ASCII)
_ORDER = {kind: place for place, kind in enumerate(NumberKind)}


def token_of(text: str) -> str | None:
    """The token of a page's link, if the text is such a link."""
    match = _LINK.search(text.strip())
    return None if match is None else match[1]


async def find_by_number(db: Database, text: str) -> list[Match]:
    """All that the number may name, exact matches first, the strongest kind before the others.

    A number that is no one's is an empty list; so is a text that no number can be.
    """
    number = storable(text.strip())
    if not number or len(number) > NUMBER_CHARACTERS_MAX:
        return []
    link = token_of(number)
    token = link or (number if _TOKEN.fullmatch(number) else None)
    case_id = _CASE_ID.fullmatch(number)
    rows = await db.fetch(
        _EXACT, "" if link else number, token, _uuid_of(number), None if case_id is None else int(case_id[1])
    )
    matches = (
        Match(kind=NumberKind(kind), number=found, order_no=order_no, account=account, callback_id=callback_id)
        for kind, found, order_no, account, callback_id in rows
    )
    exact = list(dict.fromkeys(matches))
    exact.sort(key=lambda match: (_ORDER[match.kind], match.order_no or "~"))
    return exact if link else [*exact, *await _find_by_beginning(db, number)]


def order_of(matches: Sequence[Match]) -> str | None:
    """The one order that the exact matches name, if they all name it. A case's number is a number of many things, so it
    counts only where nothing else matches.
    """
    exact = [match for match in matches if match.is_exact]
    strong = [match for match in exact if match.kind is not NumberKind.CASE_ID] or exact
    orders = {match.order_no for match in strong}
    return orders.pop() if len(orders) == 1 else None


async def _find_by_beginning(db: Database, number: str) -> list[Match]:
    if len(number) < PREFIX_CHARACTERS_MIN or ORDER_NO.fullmatch(number) is None:
        return []
    found = [row["order_no"] for row in await db.fetch(_PREFIX, number)]
    return [Match(kind=NumberKind.ORDER_NO_PREFIX, number=order_no, order_no=order_no) for order_no in found]


def _uuid_of(number: str) -> UUID | None:
    try:
        return UUID(number)
    except ValueError:
        return None
