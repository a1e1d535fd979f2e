"""Many pending payments: one order is placed by the API, and its rows are copied in Postgres.

A copy has all columns that the current code writes, with numbers of its own. Unlike a real order it was never updated,
so it leaves no dead row versions.
"""

from __future__ import annotations

from msgspec.structs import replace

from bench.buyer import Buyer
from bench.loops import closed_loop
from bench.rig import ACCOUNT, Rig
from channels.adapters import open_channel
from channels.base import Create
from channels.transport import Transport
from core.order import OrderState, PendingKind
from flows.commit import job_of
from storage.postgres import pending
from storage.postgres.accounts import get_accounts
from storage.postgres.orders import find_state
from storage.redis.delay_queue import HORIZON_S
from storage.sealing import Sealer

FIRST = "first-0000000000"
CHUNK = 5000
"""Orders copied by one statement, within its time-out."""

LATER_S = 2 * HORIZON_S
"""Copies that are due later than this are armed by nobody but the benchmark."""

CREATORS = 32
CREATE_TIMEOUT_S = 15.0
CREATE_LIMIT_S = 60.0

# Order numbers of 16 characters, our numbers of 28 and page tokens of 22, as real ones; random, as indexes meet them.
_COPY = """
INSERT INTO {table}
SELECT copy.*
  FROM {table} AS t
 CROSS JOIN generate_series($2::bigint, $3::bigint) AS i
 CROSS JOIN LATERAL (
        SELECT 'clone-' || lpad(i::text, 10, '0') AS order_no, left(md5('number' || i), 28) AS out_trade_no,
               left(md5('page' || i), 22) AS page_token,
               now() + make_interval(secs => $4::float8 + ($5::float8 - $4::float8) * (i % 1000) / 1000) AS due_at,
               $6::boolean AS with_deadlines
       ) AS n
 CROSS JOIN LATERAL jsonb_populate_record(t, jsonb_build_object({changes})) AS copy
 WHERE t.order_no = $1"""

_TABLES = {
    "orders": "'order_no', n.order_no, 'page_token', n.page_token",
    "payments": "'order_no', n.order_no, 'out_trade_no', n.out_trade_no",
    "order_events": "'order_no', n.order_no, 'out_trade_no', n.out_trade_no",
    "pending": """'order_no', n.order_no,
                  'out_trade_no', CASE t.kind WHEN 'query' THEN n.out_trade_no ELSE n.order_no END,
                  'due_at', CASE WHEN t.kind = 'query' OR n.with_deadlines THEN n.due_at
                                 ELSE t.due_at + i * interval '1 microsecond' END""",
}
COPIED = tuple(_TABLES)

_NUMBERS = "SELECT out_trade_no FROM payments WHERE order_no LIKE 'clone-%' ORDER BY order_no"


async def place_first(rig: Rig) -> OrderState:
    """Place the order to be copied."""
    async with Buyer(rig) as buyer:
        await buyer.place(FIRST)
    state = await find_state(rig.db, FIRST)
    assert state is not None, "the order was just placed"
    return state


async def copy_orders(rig: Rig, count: int, *, from_s: float, until_s: float, with_deadlines: bool = False) -> None:
    """Make `count` copies, each with a query due between these seconds from now, and a deadline.

    The deadline is that of the first order, a microsecond later for each copy: no two real ones are due at the same
    instant. With `with_deadlines` it is the instant of the query.
    """
    for start in range(1, count + 1, CHUNK):
        end = min(start + CHUNK - 1, count)
        for table, changes in _TABLES.items():
            statement = _COPY.format(table=table, changes=changes)
            await rig.db.execute(statement, FIRST, start, end, from_s, until_s, with_deadlines)
    for table in COPIED:
        await rig.db.execute(f"VACUUM (ANALYZE) {table}")


async def create_at_channel(rig: Rig, first: OrderState) -> list[str]:
    """Create the copies at the channel; return their numbers."""
    numbers = [row["out_trade_no"] for row in await rig.db.fetch(_NUMBERS)]
    configs = await get_accounts(rig.db, Sealer.from_setting(rig.stack.master_key))
    payment = first.payments[0]
    base = rig.stack.api_url
    async with Transport(timeout_s=CREATE_TIMEOUT_S) as transport:
        channel = open_channel(next(config for config in configs if config.name == ACCOUNT), transport)

        async def create(number: int) -> None:
            await channel.create_payment(
                Create(
                    payment=replace(payment, out_trade_no=numbers[number]),
                    subject=first.order.subject,
                    callback_url=f"{base}/callbacks/{ACCOUNT}",
                    return_url=f"{base}/o/{first.order.page_token}/return",
                )
            )

        await closed_loop(create, len(numbers), CREATORS, CREATE_LIMIT_S)
    return numbers


async def arm_copies(rig: Rig, *, until_s: float, only: PendingKind | None = None) -> int:
    """Arm in Redis what is due within `until_s`, as the API does for a new order; return the number of jobs."""
    count = 0
    async for batch in pending.walk_due(rig.db, from_s=0.0, until_s=until_s):
        count += await rig.queue.arm([job_of(armed) for armed in batch if only in (None, armed.kind)])
    return count
