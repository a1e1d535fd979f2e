"""Genuine callbacks that a disturbance sends itself, to see how each is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from simulator.kit.http_client import http_client
from simulator.shoppers.shop import ShopOrder
from tests.chaos.ground import Ground
from tests.scenarios.scenario import number_of

CHANNEL_WAITS_S = 5.0
"""https://pay.weixin.qq.com/doc/v3/merchant/4012791861: within five seconds."""

NO_RESPONSE = 0

CONNECTIONS_MAX = 2500
"""No callback waits for a connection of another one: the channel's time begins when it is sent."""

_STORED = "SELECT notification_id FROM callbacks WHERE notification_id = ANY($1::text[])"


class Answer(NamedTuple):
    """The answer to a callback. `status` is 0 without a response within the channel's time."""

    callback_id: str
    status: int
    seconds: float
    has_retry_after: bool


class Callbacks:
    """Callbacks about orders of their own, which are paid at the channel and were never called back.

    `new`: a new notification each time; else the bytes of an earlier one are repeated.
    """

    def __init__(self, ground: Ground, url: str = "") -> None:
        self.answers: list[Answer] = []
        self._ground = ground
        self._url = f"{url or ground.stack.api_url}/callbacks/sandbox"
        self._signed: list[tuple[dict[str, str], bytes]] = []
        self._orders: list[tuple[ShopOrder, str]] = []
        self._sent = 0
        self._client: Client = http_client(CONNECTIONS_MAX)

    async def prepare(self, count: int) -> None:
        """Place the orders and let them be paid."""
        scenario = self._ground.scenario
        orders = await scenario.place_many(count)
        await scenario.put_off(*orders)
        for order in orders:
            await scenario.pay(order, "lost")
        ledger = {payment.out_trade_no: payment.transaction_id for payment in (await scenario.ledger()).payments}
        self._orders = [(order, ledger[number_of(order)] or "") for order in orders]

    async def send(self, *, new: bool = True) -> Answer:
        """Send one callback, and record how it was answered."""
        if new or not self._signed:
            order, transaction_id = self._orders[self._sent % len(self._orders)]
            self._sent += 1
            self._signed.append(self._ground.scenario.signed_callback(order, transaction_id=transaction_id))
            headers, body = self._signed[-1]
        else:
            headers, body = self._ground.random.choice(self._signed)
        began = time.monotonic()
        status, has_retry_after = await self._post(headers, body)
        answer = Answer(headers["sandbox-callback-id"], status, time.monotonic() - began, has_retry_after)
        self.answers.append(answer)
        return answer

    async def send_for(self, seconds: float, gap_s: float) -> list[Answer]:
        """Send a new callback each `gap_s`, whether or not the one before is answered; return their answers."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            tasks = []
            while time.monotonic() < until:
                tasks.append(group.create_task(self.send()))
                await asyncio.sleep(gap_s)
        return [task.result() for task in tasks]

    async def close(self) -> None:
        await self._client.close()

    async def check_stored(self) -> None:
        """Check that each acknowledged callback is in the inbox."""
        acknowledged = {answer.callback_id for answer in self.answers if answer.status == 200}
        stored = {row["notification_id"] for row in await self._ground.db.fetch(_STORED, list(acknowledged))}
        for callback_id in sorted(acknowledged - stored):
            self._ground.report_broken(f"I5: callback {callback_id} was acknowledged and is not stored")

    async def _post(self, headers: dict[str, str], body: bytes) -> tuple[int, bool]:
        try:
            request = self._client.request("POST", self._url).headers(headers).body_bytes(body)
            async with asyncio.timeout(CHANNEL_WAITS_S), request.build_streamed() as response:
                return response.status, "retry-after" in response.headers
        except (PyreqwestError, TimeoutError):
            return NO_RESPONSE, False


def counted(answers: Sequence[Answer]) -> str:
    """Return the counts of answers by status, as text: `200 × 31, 503 × 2`."""
    counts = Counter(answer.status for answer in answers)
    return ", ".join(f"{status or 'none'} × {count}" for status, count in sorted(counts.items())) or "none"
