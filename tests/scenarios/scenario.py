"""Actions of a scenario on a running stack, from outside: as merchant, buyer, channel and operator. Nodrop's state is
read with SQL.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from signal import SIGCONT, SIGSTOP
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4
from weakref import WeakKeyDictionary

import asyncpg
import httpx
import msgspec

from channels.base import Create
from channels.sandbox.adapter import Sandbox
from channels.transport import Transport
from core.order import Payment, PaymentStatus
from core.settings import read_settings
from demo.books import read_books
from demo.embedded.child import is_alive
from demo.service import NO_TLS, Service
from demo.stack import Stack
from simulator.kernel.snapshot import LedgerPayment, LedgerSnapshot
from simulator.kernel.traffic import Arrival
from simulator.merchant.control import Effects
from simulator.merchant.notifications import Delivery, Effect
from simulator.oracle.invariants import check
from simulator.oracle.violations import Invariant, Violation
from simulator.oracle.work import Limits, bounded_loads
from simulator.shoppers.shop import OrderRequest, Shop, ShopOrder
from storage.postgres.accounts import put_account
from storage.postgres.database import Database
from storage.sealing import Sealer
from tests.scenarios import redis_states
from tests.scenarios.leaks import leaks
from tests.servers import Process, eventually

UNIT_S = 0.1
UNANSWERED_S = 0.5
LEASE_S = 3.0
"""Longer than the deadlines of the work under a lease, as in production, and short enough for a test."""

ENVIRONMENT = {
    "LEASE_S": str(LEASE_S),
    "CHANNEL_TIMEOUT_S": "2",
    "NOTIFY_TIMEOUT_S": "2",
    "CALLBACK_CONFIRM_S": "1.5",
    "CALLBACK_UNANSWERED_S": str(UNANSWERED_S),
    "REFRESH_COOLDOWN_S": "10",
    "SWEEP_INTERVAL_S": "0.3",
    "SWEEP_GRACE_S": "0.6",
    "SHUTDOWN_GRACE_S": "6",
    "UNDELIVERED_INTERVAL_S": "3600",
}

QUIET_S = 120.0
"""Limit until all work is done, also on a busy machine."""

OVERDUE_S = 2 * LEASE_S
AMOUNT = 8888
METADATA = {"customer": "ana@customers.example"}
SLOW_RATE_PER_S = 40
"""Rate of the account `slow` in any second, for all processes together."""

ARRIVAL_WINDOW_S = 0.75
"""At the channel a shorter time than a second is checked: a process that waits for the processor sends or reads a call
late, and it falls into the second of its successors. Two processes that each use the whole rate, or a burst above it,
exceed the limit within this time as well.
"""

POSTPONED_S = 3600.0
"""Time by which `put_off` postpones a query."""

_LEFT = """
WITH ours AS (SELECT * FROM unnest($1::text[]) AS order_no)
SELECT 'pending' AS kind, q.order_no AS reference
  FROM ours JOIN pending q USING (order_no)
  LEFT JOIN payments p ON (p.channel_account, p.out_trade_no) = (q.channel_account, q.out_trade_no)
 WHERE p.status IS DISTINCT FROM 'closed'
UNION ALL
SELECT 'refund', order_no FROM refunds JOIN ours USING (order_no) WHERE status IN ('requested', 'processing')
UNION ALL
SELECT 'callback', c.out_trade_no
  FROM callbacks c JOIN payments USING (channel_account, out_trade_no) JOIN ours USING (order_no)
 WHERE handled_at IS NULL AND dead_at IS NULL
UNION ALL
SELECT 'notification', order_no FROM notifications JOIN ours USING (order_no)
 WHERE delivered_at IS NULL AND superseded_at IS NULL AND dead_at IS NULL
 LIMIT 20"""

_MAKE_DUE = """
UPDATE pending
   SET due_at = now() - make_interval(secs => $2), arm_no = arm_no + 1, attempt = coalesce($3::int, attempt),
       answered_from = NULL
 WHERE order_no = ANY($1::text[]) AND kind = 'query' AND (leased_until IS NULL OR leased_until <= now())
   AND out_trade_no <> ALL($4::text[])
RETURNING out_trade_no"""
_NOT_MOVED = """
SELECT count(*) FROM pending
 WHERE order_no = ANY($1::text[]) AND kind = 'query' AND out_trade_no <> ALL($2::text[])"""

_SEEN: WeakKeyDictionary[Stack, set[tuple[Invariant, str]]] = WeakKeyDictionary()
"""Breaks that made scenarios on a stack fail: later ones on it are judged by what they break themselves."""

AnOrder = ShopOrder | str
"""An order of the API's response, or an order number."""


class Event(NamedTuple):
    version: int
    kind: str
    by: str


class Scenario:
    """One scenario on a stack. `settle` ends it: all work is done, and the invariants hold."""

    def __init__(self, stack: Stack, db: Database, http: httpx.AsyncClient) -> None:
        self.stack = stack
        self.db = db
        self.http = http
        self.public_url = stack.api_url
        self._began = time.time()
        self._placed: list[str] = []
        self._acknowledged: set[str] = set()
        self._shops: dict[str, Shop] = {}
        self._seen = _SEEN.setdefault(stack, set())
        self._logs = {service.log: service.log.stat().st_size for service in (*stack.apis, *stack.workers)}

    @property
    def placed(self) -> tuple[str, ...]:
        """Numbers of the orders whose terms it made, placed or not."""
        return tuple(self._placed)

    @property
    def sealer(self) -> Sealer:
        return Sealer.from_setting(self.stack.master_key)

    # -- the merchant --------------------------------------------------------------------------------------------------

    async def place(self, account: str = "sandbox", **terms: Any) -> ShopOrder:
        """Place an order, with retries until it has a checkout, as a shop does."""
        order = OrderRequest(**self.terms(account=account, **terms))
        placed = await self._shop().place(order)
        assert isinstance(placed, ShopOrder), placed
        self._acknowledged.add(placed.order_no)
        return placed

    async def place_many(self, count: int, account: str = "sandbox", **terms: Any) -> list[ShopOrder]:
        return list(await asyncio.gather(*(self.place(account, **terms) for _ in range(count))))

    def terms(self, **more: Any) -> dict[str, Any]:
        """Return the terms of a new order, which `settle` closes if it is still open."""
        order_no = more.pop("order_no", None) or f"S-{uuid4().hex[:16]}"
        self._placed.append(order_no)
        terms = {"amount": AMOUNT, "currency": "CNY", "subject": "Tea, 250 g", "notify_url": self.stack.notify_url}
        return {"order_no": order_no, "expires_in_s": 600, "metadata": METADATA, **terms, **more}

    async def post(self, path: str, body: object = None, *, api: int = 0) -> httpx.Response:
        """Send a POST to the API, with the merchant's key."""
        headers = {"authorization": f"Bearer {self.stack.api_key}", "content-type": "application/json"}
        content = b"" if body is None else msgspec.json.encode(body)
        response = await self.http.post(self.stack.api_urls[api] + path, content=content, headers=headers)
        if (path, response.status_code) == ("/v1/orders", 201):
            self._acknowledged.add(response.json()["order_no"])
        return response

    async def add_payment(self, order: ShopOrder, account: str) -> ShopOrder:
        """Add a payment at another account; return the order."""
        started = await self._shop().add_payment(order.order_no, account)
        assert isinstance(started, ShopOrder), started
        return started

    async def view(self, order: AnOrder) -> dict[str, Any]:
        """Return the order as the API shows it."""
        headers = {"authorization": f"Bearer {self.stack.api_key}"}
        response = await self.http.get(f"{self.stack.api_url}/v1/orders/{order_no_of(order)}", headers=headers)
        assert response.status_code == 200, response.text
        view: dict[str, Any] = response.json()
        return view

    async def refresh(self, order: AnOrder) -> str:
        """Refresh the order as the merchant; return its status."""
        response = await self.post(f"/v1/orders/{order_no_of(order)}/refresh")
        assert response.status_code == 200, response.text
        return str(response.json()["status"])

    async def close(self, order: AnOrder) -> httpx.Response:
        return await self.post(f"/v1/orders/{order_no_of(order)}/close")

    async def deliveries(self, order: AnOrder) -> list[Delivery]:
        """Return the notifications that the merchant received for this order, oldest first."""
        documents = msgspec.convert(await self.stack.control("GET", "merchant", "/control/deliveries"), list[Delivery])
        return [delivery for delivery in documents if delivery.order_no == order_no_of(order)]

    async def was_notified(self, order: AnOrder, type_: str) -> bool:
        """Return whether the merchant has acknowledged a notification of this type."""
        types = [delivery.type for delivery in await self.deliveries(order) if delivery.answered == "200"]
        return type_ in types

    async def effects(self) -> Effects:
        return msgspec.convert(await self.stack.control("GET", "merchant", "/control/effects"), Effects)

    async def effect_of(self, order: AnOrder) -> Effect | None:
        """Return the effect of the paid order at the merchant."""
        effects = (await self.effects()).effects
        return next((effect for effect in effects if effect.order_no == order_no_of(order)), None)

    async def merchant_faults(self, **shares: object) -> None:
        await self.stack.control("PUT", "merchant", "/control/faults", shares)

    # -- the buyer -----------------------------------------------------------------------------------------------------

    async def return_from_channel(self, order: ShopOrder) -> httpx.Response:
        """Follow the channel's `return_url` to the order's page as the buyer."""
        return await self.http.get(f"{order.order_page}/return", follow_redirects=True)

    # -- the channel ---------------------------------------------------------------------------------------------------

    async def pay(self, order: ShopOrder, callback: str | None = "lost", *, nth: int = 1) -> None:
        """Pay at the channel. `callback` is the fault of the callback; None: the profile decides."""
        body = None if callback is None else {"at_fault": {"callback": callback}}
        await self.stack.control("POST", "channel", f"/control/payments/{number_of(order, nth)}/pay", body)

    async def pay_late(self, order: ShopOrder) -> None:
        """Let money arrive at the channel for its first payment, which is closed there."""
        await self.stack.control("POST", "channel", f"/control/payments/{number_of(order)}/pay-late")

    async def request_callback(self, order: ShopOrder, *, nth: int = 1) -> int | None:
        """Request one more genuine callback of a paid payment; return its HTTP status, None without a response."""
        documents = await self.stack.control("POST", "channel", f"/control/payments/{number_of(order, nth)}/callback")
        status: int | None = documents["status"]
        return status

    async def faults(self, **profile: object) -> None:
        """Set the faults of the channel; all others are off."""
        await self.stack.control("PUT", "channel", "/control/faults", profile)

    async def calls(self) -> list[Arrival]:
        """Return the calls that arrived at the channel in this scenario, oldest first."""
        documents = await self.stack.control("GET", "channel", f"/control/arrivals?since={self._began}")
        return msgspec.convert(documents["arrivals"], list[Arrival])

    async def query_times(self, order: ShopOrder) -> list[float]:
        """Return the times of queries for the order's first payment."""
        number = number_of(order)
        return [call.at for call in await self.calls() if (call.kind, call.number) == ("query", number)]

    async def ledger(self) -> LedgerSnapshot:
        return msgspec.convert(await self.stack.control("GET", "channel", "/control/ledger"), LedgerSnapshot)

    async def ledger_payment(self, order: ShopOrder) -> LedgerPayment:
        """Return the order's first payment in the channel's ledger."""
        return next(row for row in (await self.ledger()).payments if row.out_trade_no == number_of(order))

    async def create_outside(self, number: str, account: str = "sandbox") -> None:
        """Create a payment as another system of the merchant, with callbacks to us."""
        payment = Payment(
            channel_account=account,
            out_trade_no=number,
            order_no="",
            attempt_no=1,
            amount=AMOUNT,
            currency="CNY",
            status=PaymentStatus.OPEN,
            payable_until=datetime(2038, 1, 19, tzinfo=UTC),
            created_at=datetime.now(UTC),
        )
        create = Create(
            payment=payment,
            subject="Tea, 250 g",
            callback_url=f"{self.stack.api_url}/callbacks/{account}",
            return_url=self.stack.merchant_url,
        )
        async with Transport(timeout_s=60) as transport:
            await Sandbox(await self.stack.open_account(account), transport).create_payment(create)

    def signed_callback(
        self, order: ShopOrder | str, *, account: str = "sandbox", **fields: Any
    ) -> tuple[dict[str, str], bytes]:
        """Return headers and body of a genuine callback; `fields` replaces fields of its payment."""
        number = order if isinstance(order, str) else number_of(order)
        payment = {
            "merchant_id": f"m-{account}",
            "out_trade_no": number,
            "transaction_id": uuid4().hex[:24],
            "amount": AMOUNT,
            "currency": "CNY",
            "subject": "Tea, 250 g",
            "status": "paid",
            "refunded_amount": 0,
            "paid_at": "2026-11-23T04:00:00Z",
            "expires_at": "2038-01-19T03:14:07Z",
            "pay_url": "http://127.0.0.1:9/pay",
        }
        callback_id = f"cb_{uuid4().hex[:24]}"
        body = msgspec.json.encode({"id": callback_id, "type": "payment.paid", "payment": payment | fields})
        return self.sign(body, account=account, callback_id=callback_id), body

    def sign(self, body: bytes, *, callback_id: str, account: str = "sandbox", ago_s: float = 0.0) -> dict[str, str]:
        """Return the channel's signature over these bytes."""
        merchant_id, at = f"m-{account}", str(int(time.time() - ago_s))
        signed = f"CALLBACK\n{at}\n{callback_id}\n{merchant_id}\n".encode() + body
        mac = hmac.digest(secret_of(self.stack, account).encode(), signed, "sha256").hex()
        return {
            "content-type": "application/json",
            "sandbox-merchant": merchant_id,
            "sandbox-callback-id": callback_id,
            "sandbox-signature": f"t={at},k=k1,v1={mac}",
        }

    async def deliver(
        self, headers: dict[str, str], body: bytes, *, account: str = "sandbox", api: int = 0
    ) -> httpx.Response:
        """Send a callback to the API."""
        return await self.http.post(f"{self.stack.api_urls[api]}/callbacks/{account}", content=body, headers=headers)

    # -- the operator --------------------------------------------------------------------------------------------------

    async def nodrop(self, *arguments: str) -> tuple[int, str]:
        """Run a command of `nodrop`; return its exit code and its output."""
        log = self.stack.directory / f"nodrop-{uuid4().hex}.log"
        async with Process("cli", *arguments, env=self.stack.environ, log=log) as process:
            return await process.wait(), process.output()

    async def make_due(self, *orders: AnOrder, ago_s: float = 0.0, attempt: int | None = None) -> None:
        """Make the queries of these orders due since `ago_s`; jobs that are armed in Redis become outdated."""
        order_nos = [order_no_of(order) for order in orders]

        moved: list[str] = []

        async def are_moved() -> bool:
            """Move all rows that are not leased; the others follow after their lease."""
            rows = await self.db.fetch(_MAKE_DUE, order_nos, ago_s, attempt, moved)
            moved.extend(row["out_trade_no"] for row in rows)
            return bool(moved and await self.db.fetchval(_NOT_MOVED, order_nos, moved) == 0)

        await eventually(are_moved)

    async def put_off(self, *orders: AnOrder) -> None:
        """Postpone scheduled queries of these orders by an hour."""
        await self.make_due(*orders, ago_s=-POSTPONED_S)

    async def make_callback_due(self, number: str, *, attempt: int) -> None:
        """Make a callback in the inbox due, at the end of the day for which its payment is looked for."""
        sql = """UPDATE callbacks SET due_at = now(), kept_until = now(), arm_no = arm_no + 1, attempt = $2
                  WHERE out_trade_no = $1 AND handled_at IS NULL"""
        assert await self.db.execute(sql, number, attempt) == 1

    @asynccontextmanager
    async def frozen_workers(self) -> AsyncIterator[None]:
        """Stop all workers with SIGSTOP, and continue them afterwards."""
        for worker in self.stack.workers:
            signal(worker, SIGSTOP)
        try:
            yield
        finally:
            for worker in self.stack.workers:
                signal(worker, SIGCONT)

    @asynccontextmanager
    async def no_workers(self) -> AsyncIterator[None]:
        """Kill all workers, and start them again afterwards."""
        await asyncio.gather(*(worker.kill() for worker in self.stack.workers))
        try:
            yield
        finally:
            await asyncio.gather(*(worker.start() for worker in self.stack.workers))

    def no_redis(self) -> AbstractAsyncContextManager[None]:
        """Kill Redis, and start it empty afterwards."""
        return redis_states.down(self.stack)

    @asynccontextmanager
    async def no_postgres(self) -> AsyncIterator[None]:
        """Kill Postgres, and start it again afterwards."""
        await asyncio.to_thread(self.stack.postgres.kill)
        try:
            yield
        finally:
            await asyncio.to_thread(self.stack.postgres.start)

    # -- nodrop's state ------------------------------------------------------------------------------------------------

    async def status(self, order: AnOrder) -> str | None:
        """Return the status of the order; None if there is none."""
        sql = "SELECT status FROM orders WHERE order_no = $1"
        status: str | None = await self.db.fetchval(sql, order_no_of(order))
        return status

    async def payment_status(self, order: ShopOrder) -> str:
        """Return the status of its first payment."""
        status: str = await self.db.fetchval("SELECT status FROM payments WHERE out_trade_no = $1", number_of(order))
        return status

    async def until(self, status: str, *orders: AnOrder, timeout_s: float = QUIET_S) -> None:
        """Wait until all these orders have this status."""
        order_nos = [order_no_of(order) for order in orders]
        sql = "SELECT count(*) FROM orders WHERE order_no = ANY($1::text[]) AND status = $2"

        async def have_it() -> bool:
            return bool(await self.db.fetchval(sql, order_nos, status) == len(order_nos))

        await eventually(have_it, timeout_s)

    async def events(self, order: AnOrder) -> list[Event]:
        """Return the order's events by version."""
        sql = "SELECT version, kind, by FROM order_events WHERE order_no = $1 ORDER BY version"
        return [Event(*row) for row in await self.db.fetch(sql, order_no_of(order))]

    async def paid_by(self, order: AnOrder) -> str:
        """Return the source of the event that made the order paid."""
        [by] = [event.by for event in await self.events(order) if event.kind in ("paid", "paid_late")]
        return by

    async def cases(self, number: str) -> list[str]:
        """Return the reasons of the payment's open cases."""
        sql = "SELECT reason FROM cases WHERE out_trade_no = $1 AND resolved_at IS NULL ORDER BY id"
        return [row["reason"] for row in await self.db.fetch(sql, number)]

    async def cases_at(self, account: str) -> list[str]:
        """Return the reasons of the account's open cases."""
        sql = "SELECT reason FROM cases WHERE channel_account = $1 AND resolved_at IS NULL ORDER BY reason"
        return [row["reason"] for row in await self.db.fetch(sql, account)]

    async def callbacks(self, number: str) -> list[dict[str, Any]]:
        """Return the inbox rows of a payment."""
        sql = """SELECT copies, attempt, outcome, handled_at IS NOT NULL AS is_handled, dead_at IS NOT NULL AS is_dead
                   FROM callbacks WHERE out_trade_no = $1 ORDER BY received_at, id"""
        return [dict(row) for row in await self.db.fetch(sql, number)]

    async def observed(self, order: AnOrder, kind: str) -> int:
        """Return the count of observations of this kind."""
        sql = "SELECT count(*) FROM observations WHERE order_no = $1 AND kind = $2"
        return int(await self.db.fetchval(sql, order_no_of(order), kind))

    # -- the end -------------------------------------------------------------------------------------------------------

    async def settle(self, *, answered: Collection[str] = ()) -> None:
        """Stop all faults, close open orders, and wait for the end of all work: then I1 to I8 hold, and no process has
        logged an unexpected error, or a text that no log may hold. `answered` are orders whose cases a person has
        resolved: I1 asks for an open one.
        """
        await self.faults()
        await self.merchant_faults()
        for order_no in self._placed:
            if await self.status(order_no) in ("created", "paying"):
                await self.close(order_no)
        await eventually(self._is_quiet, QUIET_S, 0.1)
        violations = [
            each
            for each in await self.violations()
            if each.invariant is not Invariant.I1 or each.order_no not in answered
        ]
        self._seen |= {(each.invariant, each.order_no) for each in violations}
        assert violations == []
        logs = self.new_logs()
        assert unexpected_errors(logs) == set()
        assert await leaks(self.stack, self.db, self._placed, logs) == set()

    async def violations(self, rows: asyncpg.Connection | None = None) -> list[Violation]:
        """Return contradictions between the channel's ledger, the merchant's effects and our rows, and seconds with
        more calls of an account than its rate; no earlier scenario's. `rows`: a connection that sees rows of its own.
        """
        ledger, effects = await self.ledger(), await self.effects()
        books, now = await read_books(rows or self.db)
        settings = read_settings(self.stack.environ)
        ahead_s = max(POSTPONED_S, settings.backoff().day_s) + settings.payable_margin_s
        limits = Limits(overdue_s=OVERDUE_S, ahead_s=ahead_s, lease_s=settings.lease_s)
        found = [
            *check(ledger, effects, books, now=now, limits=limits, placed=self._acknowledged),
            *bounded_loads(
                await self.calls(),
                limits_per_s={"m-slow": SLOW_RATE_PER_S},
                limit_per_s=self.stack.rate_per_s,
                window_s=ARRIVAL_WINDOW_S,
            ),
        ]
        return [each for each in found if (each.invariant, each.order_no) not in self._seen]

    def new_logs(self) -> list[bytes]:
        """Return what the web processes and the workers have logged in this scenario."""
        return [log.read_bytes()[size:] for log, size in self._logs.items()]

    async def aclose(self) -> None:
        await asyncio.gather(*(shop.__aexit__() for shop in self._shops.values()))

    def _shop(self) -> Shop:
        """Return the merchant's client of the public address: one for all orders, for each costs 5 ms of CPU."""
        if self.public_url not in self._shops:
            self._shops[self.public_url] = Shop(self.public_url, self.stack.api_key)
        return self._shops[self.public_url]

    async def _is_quiet(self) -> bool:
        return not await self.db.fetch(_LEFT, self._placed)


def unexpected_errors(logs: list[bytes]) -> set[str]:
    """Return the unexpected exceptions in the logs."""
    lines = (line for log in logs for line in log.splitlines() if b"_broke" in line)
    documents = map(msgspec.json.decode, lines)
    return {f"{line['event']}: {line.get('error')} at {line.get('where')}" for line in documents}


def order_no_of(order: AnOrder) -> str:
    return order if isinstance(order, str) else order.order_no


def port_of(url: str) -> int:
    return urlsplit(url).port or 80


def number_of(order: ShopOrder, nth: int = 1) -> str:
    """Return the number of its first payment, or of the nth."""
    return order.payments[nth - 1].out_trade_no


def secret_of(stack: Stack, account: str) -> str:
    """Return the account's signing secret, here and at the channel."""
    keys: dict[str, str] = stack._opened[account].credentials["keys"]
    return keys["k1"]


async def add_account(stack: Stack, db: Database, name: str, **config: Any) -> None:
    """Add an account here and at the channel, and wait until every web process knows it."""
    await put_accounts(stack, db, {name: config})


async def put_accounts(stack: Stack, db: Database, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Add accounts here and at their channels, and wait until every web process knows them all.

    Each looks for unknown names once a second, and an earlier test may just have asked for one.
    """
    for name, config in configs.items():
        account = await stack.open_account(name, **config)
        await put_account(db, Sealer.from_setting(stack.master_key), account)
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
        for url in stack.api_urls:
            for name in configs:
                await eventually(partial(_is_known, stack, http, url, name))


async def _is_known(stack: Stack, http: httpx.AsyncClient, url: str, account: str) -> bool:
    """Whether a payment could be started there: that the order is missing is found after the account."""
    headers = {"authorization": f"Bearer {stack.api_key}"}
    response = await http.post(f"{url}/v1/orders/no-such-order/payments", json={"account": account}, headers=headers)
    assert response.status_code == 404, response.text
    return "unknown_account" not in response.text


def signal(service: Service, signum: int) -> None:
    """Send a signal to a running process of the stack."""
    pid = service.pid
    assert pid is not None
    assert is_alive(pid), f"{service.name} has ended"
    os.kill(pid, signum)


def gaps(times: Sequence[float]) -> list[float]:
    """Return the seconds between consecutive times."""
    return [later - earlier for earlier, later in pairwise(times)]
