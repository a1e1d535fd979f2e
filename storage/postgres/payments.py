"""Payments by any id that a channel may name them by: our number, the channel's transaction id, its reference."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.order import Payment
from storage.postgres.database import Database, storable

PAYMENT_JSON = """to_jsonb(p) || jsonb_build_object('refunded_amount',
    CASE WHEN p.is_refund_amount_unknown THEN NULL ELSE p.refunded_amount END)"""
"""SQL expression over `payments p`: a `Payment` as JSON."""


def _by(column: str, rank: int) -> str:
    """Each id by itself: for a list of them, the planner would rather read all of an account while it has few."""
    return f"""
    SELECT {rank} AS rank, p.{column} AS id, ({PAYMENT_JSON})::text AS payment, p.attempt_no, p.created_at
      FROM unnest($2::text[]) AS wanted(id)
     CROSS JOIN LATERAL (
           SELECT * FROM payments WHERE channel_account = $1 AND {column} = wanted.id OFFSET 0) AS p"""


# Later rows win: a number names one payment for ever, a reference may be watched by several orders.
_BY_IDS = f"""
SELECT id, payment FROM ({_by("channel_reference", 1)}
    UNION ALL{_by("channel_transaction_id", 2)}
    UNION ALL{_by("out_trade_no", 3)}) AS found
 ORDER BY rank, created_at DESC, attempt_no DESC"""

_decoder = msgspec.json.Decoder(Payment)


async def find_payments_by_ids(db: Database, account: str, ids: Iterable[str]) -> dict[str, Payment]:
    """Payments of this account, ours or watched and in any status, by those of the ids that name one.

    The same id at another account is another payment. An id that names several payments is the number of the one that
    is returned, or else its transaction, or else the reference of the oldest.
    """
    wanted = list({storable(id_) for id_ in ids})
    rows = await db.fetch(_BY_IDS, account, wanted) if wanted else []
    return {row["id"]: _decoder.decode(row["payment"]) for row in rows}
