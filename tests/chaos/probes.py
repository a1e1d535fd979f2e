"""Genuine callbacks that a disturbance sends itself, to see how each is answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from simulator.kit.http_client import http_client
from simulator.shoppers.shop import ShopOrder
from tests.chaos.ground import Ground
from tests.scenarios.scenario import number_of

CHANNEL_WAITS_S = 5.0
"""https://pay.weixin.qq.com/doc/v3/merchant/4012791861: within five seconds."""

NO_RESPONSE, ACKNOWLEDGED, COME_AGAIN = 0, 200, 503

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
    """Callbacks about `count` orders of their own, which are paid at the channel and were never called back. They are
    sent to `url`, or to the system's first web process.

    Entered, the orders are paid; at the end each callback that was acknowledged is in the inbox, or that is a break.
    """

    def __init__(self, ground: Ground, count: int, url: str = "") -> None:
        self.answers: list[Answer] = []
        self._ground = ground
        self._count = count
        self._url = f"{url or ground.stack.api_url}/callbacks/sandbox"
        self._signed: list[tuple[dict[str, str], bytes]] = []
        self._orders: list[tuple[ShopOrder, str]] = []
        self._sent = 0
        self._client: Client = http_client(CONNECTIONS_MAX)

    async def __aenter__(self) -> Self:
        scenario = self._ground.scenario
        orders = await scenario.place_many(self._count)
        await scenario.put_off(*orders)
        for order in orders:
            await scenario.pay(order, "lost")
        ledger = {payment.out_trade_no: payment.transaction_id for payment in (await scenario.ledger()).payments}
        self._orders = [(order, ledger[number_of(order)] or "") for order in orders]
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        await self._client.close()
        if exc_type is None:
            await self.check_stored()

    async def send(self, *, new: bool = True) -> Answer:
        """Send a new callback, or the bytes of an earlier one again, and record how it was answered."""
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

    async def send_for(self, seconds: float, gap_s: float, *, repeats: bool = False) -> list[Answer]:
        """Send a callback each `gap_s`, whether or not the one before is answered; return their answers. `repeats`:
        every other one is an earlier one again.
        """
        began = time.monotonic()
        tasks: list[asyncio.Task[Answer]] = []
        async with asyncio.TaskGroup() as group:
            while (passed := time.monotonic() - began) < seconds:
                tasks += [
                    group.create_task(self.send(new=not repeats or number % 2 == 0))
                    for number in range(len(tasks), int(passed / gap_s) + 1)
                ]
                await asyncio.sleep(began + len(tasks) * gap_s - time.monotonic())
        return [task.result() for task in tasks]

    async def expect_acknowledged(self, name: str, seconds: float, count: int) -> list[Answer]:
        """Send so many callbacks within this time, measured as `name`: one that is not acknowledged is a break."""
        answers = await self.send_for(seconds, seconds / count)
        if refused := [answer for answer in answers if answer.status != ACKNOWLEDGED]:
            self._ground.report_broken(f"{name}: callbacks were answered {counted(refused)}")
        self._ground.measure_times(f"{name}: acknowledged", [answer.seconds for answer in answers])
        return answers

    async def check_stored(self) -> None:
        """Check that each acknowledged callback is in the inbox."""
        acknowledged = {answer.callback_id for answer in self.answers if answer.status == ACKNOWLEDGED}
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
