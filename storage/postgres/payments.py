"""Payments by any id that a channel may name them by: our number, the channel's transaction id, its reference."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.order import Payment
from storage.postgres.database import Database, storable

PAYMENT_JSON = """to_jsonb(p) || jsonb_build_object('refunded_amount',
    CASE WHEN p.is_refund_amount_unknown THEN NULL ELSE p.refunded_amount END)"""
"""SQL expression over `payments p`: a `Payment` as JSON."""

# Later rows win: a number names one payment for ever, a reference may be watched by several orders.
_BY_IDS = f"""
SELECT id, payment FROM (
    SELECT 1 AS rank, channel_reference AS id, ({PAYMENT_JSON})::text AS payment, attempt_no, created_at
      FROM payments p WHERE p.channel_account = $1 AND p.channel_reference = ANY($2::text[])
    UNION ALL
    SELECT 2, channel_transaction_id, ({PAYMENT_JSON})::text, attempt_no, created_at
      FROM payments p WHERE p.channel_account = $1 AND p.channel_transaction_id = ANY($2::text[])
    UNION ALL
    SELECT 3, out_trade_no, ({PAYMENT_JSON})::text, attempt_no, created_at
      FROM payments p WHERE p.channel_account = $1 AND p.out_trade_no = ANY($2::text[])) AS found
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
