"""Orders in a real Postgres, put there through the one door, and looked at from outside."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from msgspec.structs import replace

from core.decision import Change, Decision, Event, Outcome
from core.evidence import Closed, Evidence, Paid, Source, Unpaid
from core.lifecycle import OrderTerms, PaymentTerms, Rules, on_query, place, start_payment
from core.order import OrderState, PaymentKey
from storage.postgres.address import read_address
from storage.postgres.database import Database
from storage.postgres.door.transition import Committed, Decide, transition
from storage.postgres.orders import find_now, find_state

RULES = Rules()
TERMS = OrderTerms(
    order_no="A-1", amount=8888, currency="CNY", subject="A pot of tea", notify_url="https://shop.test/hook"
)

DecideThere = Callable[[OrderState], Decision]


@asynccontextmanager
async def opened(
    url: str, *, statement_cache_size: int = 100, startup_parameters: bool = True
) -> AsyncIterator[Database]:
    database = Database(
        read_address(url, ""), statement_cache_size=statement_cache_size, startup_parameters=startup_parameters
    )
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection beside the pool, as of an operator, a dump or the holder of a lock."""
    connection = await asyncpg.connect(url, ssl=False)
    try:
        yield connection
    finally:
        await connection.close()


def number(order_no: str, account: str = "alipay") -> PaymentKey:
    """The key of an order's first payment at an account."""
    return PaymentKey(account, f"{account}-{order_no}")


def terms_of(key: PaymentKey, **changes: Any) -> PaymentTerms:
    return replace(PaymentTerms(account=key.channel_account, out_trade_no=key.out_trade_no), **changes)


async def placed(
    db: Database,
    order_no: str = "A-1",
    *,
    payment: PaymentTerms | None = None,
    without_payment: bool = False,
    expires_in_s: float = 1800.0,
    page_token: str = "",
    **changes: Any,
) -> Committed:
    """An order, placed with its first payment or `without_payment`. `page_token` is by default always the same."""
    now = await find_now(db)
    terms = None if without_payment else payment or terms_of(number(order_no))

    def decide(state: OrderState | None) -> Decision:
        return place(
            replace(TERMS, order_no=order_no, **changes),
            terms,
            state,
            RULES,
            now=now,
            expires_at=now + timedelta(seconds=expires_in_s),
            page_token=page_token or f"page-token-of-{order_no}",
        )

    return await transition(db, order_no, decide)


async def started(db: Database, order_no: str, key: PaymentKey, **changes: Any) -> Committed:
    """Another attempt to pay it."""
    terms = terms_of(key, **changes)
    return await moved(db, order_no, lambda state: start_payment(state, terms, RULES))


async def moved(db: Database, order_no: str, decide: DecideThere) -> Committed:
    """An order that is there, through the door."""
    return await transition(db, order_no, if_there(decide))


def if_there(decide: DecideThere) -> Decide:
    return lambda state: Decision(outcome=Outcome.STALE) if state is None else decide(state)


async def commit_evidence(
    db: Database, order_no: str, evidence: Evidence, *, key: PaymentKey | None = None, arm_no: int | None = None
) -> Committed:
    """Commit the result of a query through the door."""
    return await moved(db, order_no, decide_evidence(order_no, evidence, key=key, arm_no=arm_no))


def decide_evidence(
    order_no: str, evidence: Evidence, *, key: PaymentKey | None = None, arm_no: int | None = None
) -> DecideThere:
    """The decision of `commit_evidence`, for a test that calls the door itself."""
    of = key or number(order_no)
    return lambda state: on_query(state, of, evidence, RULES, Source.QUERY, arm_no=arm_no)


def paid(order_no: str = "A-1", *, key: PaymentKey | None = None, transaction: str = "", **changes: Any) -> Paid:
    of = key or number(order_no)
    evidence = Paid(
        **of._asdict(), amount=8888, currency="CNY", channel_transaction_id=transaction or f"t-{of.out_trade_no}"
    )
    return replace(evidence, **changes)


def unpaid(order_no: str = "A-1", *, key: PaymentKey | None = None) -> Unpaid:
    return Unpaid(**(key or number(order_no))._asdict())


def closed(order_no: str = "A-1", *, key: PaymentKey | None = None) -> Closed:
    return Closed(**(key or number(order_no))._asdict())


async def get_state(db: Database, order_no: str = "A-1") -> OrderState:
    state = await find_state(db, order_no)
    assert state is not None
    return state


def noted(state: OrderState) -> Decision:
    """A change that nothing speaks against: every writer that makes it makes another version."""
    order = replace(state.order, version=state.order.version + 1)
    change = Change(order=order, event=Event(kind=Outcome.NOTHING_NEW, by=Source.API))
    return Decision(outcome=Outcome.NOTHING_NEW, change=change)


async def versions(db: Database, order_no: str) -> list[int]:
    """The numbers of an order's events."""
    rows = await db.fetch("SELECT version FROM order_events WHERE order_no = $1 ORDER BY version", order_no)
    return [row["version"] for row in rows]


async def rows(db: Database, table: str, columns: str = "*", where: str = "true") -> list[dict[str, Any]]:
    return [dict(row) for row in await db.fetch(f"SELECT {columns} FROM {table} WHERE {where}")]  # noqa: S608 - ours


async def count(db: Database, table: str, where: str = "true") -> int:
    found: int = await db.fetchval(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608 - as above
    return found


async def pass_time(db: Database, table: str, seconds: float, where: str = "true") -> None:
    """Let rows have been due for longer: the clock is the database's and cannot be moved."""
    earlier = ", ".join(f"{name} = {name} - make_interval(secs => $1)" for name in ("due_at", "leased_until"))
    await db.execute(f"UPDATE {table} SET {earlier} WHERE {where}", seconds)  # noqa: S608 - as above
