"""A harsh run: channels that lose, forge and break callbacks as in `nodrop demo`, a merchant that refuses a part of its
notifications, and what the channels and the merchant know of it, to compare with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec.structs import replace

from core.next_steps import STEP_TEXTS
from core.story import ENTRY_TEXTS
from demo.open_work import count_open_work
from demo.run import CURRENCIES, HARSH, usual_plan
from demo.service import NO_TLS
from demo.stack import Stack
from simulator.kernel.ledger import PaymentStatus
from simulator.kernel.snapshot import LedgerSnapshot
from simulator.merchant.control import Effects
from simulator.shoppers.visits import run
from tests.scenarios.scenario import QUIET_S
from tests.servers import eventually

UNIT_S = 0.1
SHOPPERS = 60
EXPIRES_S = 6
RECHECKED_WITHIN_S = 4.0

PROFILE = replace(HARSH, settles_after_close=0.5, late_s=1.0, slow_s=0.5, refunded_in_console=0.1)
DEAF = {"gone": 0.3, "answered_500": 0.2}

BROKEN = {"query_missing", "deadline_missing"}
"""Steps that say that nodrop itself has lost work."""

PAYING = {"paid", "paid_late", "paid_late_accepted"}
"""Entries by which an order became paid."""

Row = dict[str, Any]


class Program:
    """A program of the merchant's operators: it has an API key and nothing else."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **query: object) -> Row:
        response = await self._http.get(path, params={name: str(value) for name, value in query.items()})
        assert response.status_code == 200, (path, response.text)
        document: Row = response.json()
        return document

    async def pages(self, path: str, name: str, **query: object) -> list[Row]:
        """All rows of a list."""
        found: list[Row] = []
        cursor: Row = {}
        while True:
            page = await self.get(path, limit=100, **query, **cursor)
            found += page[name]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    async def act(self, path: str, **body: object) -> httpx.Response:
        return await self._http.post(path, json={"reason": "a test of the whole", **body})

    async def open_cases(self) -> list[Row]:
        return await self.pages("/v1/cases", "cases", open="true")

    async def stories(self) -> dict[str, Row]:
        """The story of every order, by its number."""
        orders = await self.pages("/v1/orders", "orders")
        return {order["order_no"]: order | await self.get(f"/v1/orders/{order['order_no']}/story") for order in orders}


@asynccontextmanager
async def harsh_stack(home: Path, **env: str) -> AsyncIterator[tuple[Stack, Program]]:
    """A stack at whose channels and merchant everything goes wrong."""
    policies = {"late_policy": "flag", "double_policy": "flag"}
    env = {"RECONCILE_AT": "off", "CHANNEL_TIMEOUT_S": "2", "NOTIFY_TIMEOUT_S": "2"} | env
    accounts = {name: name for name in CURRENCIES}
    async with Stack(home, unit_s=UNIT_S, seed=5, fsync=False, accounts=accounts, account=policies, env=env) as stack:
        await stack.control("PUT", "channel", "/control/faults", PROFILE)
        await stack.control("PUT", "merchant", "/control/faults", DEAF)
        headers = {"authorization": f"Bearer {stack.api_key}"}
        async with httpx.AsyncClient(
            base_url=stack.api_url, headers=headers, trust_env=False, verify=NO_TLS, timeout=60
        ) as http:
            yield stack, Program(http)


async def shop(stack: Stack) -> None:
    """Shoppers come, and all work that they make settles, as far as it settles by itself. Then nothing goes wrong any
    more.
    """
    plan = usual_plan(stack, SHOPPERS, 5, expires_s=EXPIRES_S)
    async with stack.shop() as client:
        await run(client, plan, concurrency=32)
    await settled(stack)
    await stack.control("PUT", "channel", "/control/faults", {})
    await stack.control("PUT", "merchant", "/control/faults", {})


async def settled(stack: Stack) -> None:
    """Wait until no work is open but what a closed payment is asked a day later."""
    db = await stack.open_database()

    async def is_quiet() -> bool:
        return await count_open_work(db, RECHECKED_WITHIN_S) == 0

    try:
        await eventually(is_quiet, QUIET_S, 0.2)
    finally:
        await db.close()


async def ledger_of(stack: Stack) -> LedgerSnapshot:
    return msgspec.convert(await stack.control("GET", "channel", "/control/ledger"), LedgerSnapshot)


async def paid_at_channel(stack: Stack) -> set[str]:
    """Numbers of payments that have money at their channel, given back or not."""
    return {
        payment.out_trade_no
        for payment in (await ledger_of(stack)).payments
        if payment.status in (PaymentStatus.PAID, PaymentStatus.REFUNDED)
    }


async def heard_by_merchant(stack: Stack) -> set[str]:
    """Orders that had their effect at the merchant."""
    effects = msgspec.convert(await stack.control("GET", "merchant", "/control/effects"), Effects)
    return {effect.order_no for effect in effects.effects}


def check_is_told(story: Mapping[str, Any], paid_numbers: set[str]) -> None:
    """The story names the cause of the order's state, and something comes next, or nothing with its reason."""
    order_no, kinds = story["order_no"], [entry["kind"] for entry in story["entries"]]
    steps = [step["kind"] for step in story["next"]]
    assert kinds[0] == "placed", order_no
    assert set(kinds) <= {*ENTRY_TEXTS} - {"unknown"}, order_no
    assert steps, order_no
    assert set(steps) <= {*STEP_TEXTS} - BROKEN, order_no
    for told in (*story["entries"], *story["next"]):
        assert told["text"], order_no
        assert "{" not in told["text"], told
    if story["status"] == "paid":
        # Late money that a person accepts has both: it came, and it was accepted.
        *_, cause = [entry for entry in story["entries"] if entry["kind"] in PAYING]
        assert cause["who"], order_no
        assert cause["out_trade_no"] == story["paid_by"]["out_trade_no"], order_no
    elif story["status"] == "closed":
        assert "closed" in kinds, order_no
    else:
        assert {step["waits_for"] for step in story["next"]} >= {"worker", "buyer"}, order_no
    for payment in story["payments"]:
        number = payment["out_trade_no"]
        is_waiting = any(step["case_id"] and step["out_trade_no"] in (number, None) for step in story["next"])
        is_payer = story["paid_by"] is not None and story["paid_by"]["out_trade_no"] == number
        is_back = payment["remaining_amount"] == 0
        is_answered = any(
            entry["kind"] == "case_resolved" and entry["out_trade_no"] in (number, None) for entry in story["entries"]
        )
        if number in paid_numbers:
            assert is_payer or is_waiting or is_back or is_answered, (order_no, number, story["next"])
