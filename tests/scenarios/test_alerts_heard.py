"""Alerts with real processes and a receiver: each condition is told once, signed, with one all-clear. While the
receiver is down they wait, and a worker that is killed with a message in its hands loses none.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from pathlib import Path
from signal import SIGKILL
from uuid import uuid4

import msgspec
from standardwebhooks import Webhook

from core.alerts import AlertMessage, Rule
from core.silence import LAST_MAX, LAST_MIN
from demo.stack import Stack
from simulator.shoppers.shop import ShopOrder
from tests.channels.wire import WireRequest, WireResponse, http_bytes, read_request, serving
from tests.scenarios.conftest import running_scenario
from tests.scenarios.scenario import ENVIRONMENT, UNIT_S, Scenario
from tests.servers import Process, eventually

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SILENT = "sandbox-b"
GONE = Rule.WORKERS_GONE.value
AT = "flows.alert_messages.AlertSender.deliver:before"
TAKEN, DOWN = WireResponse(204, {}, b""), WireResponse(503, {}, b"")


class Receiver:
    """`ALERT_URL`: every message by its id, with the status that it was answered. Up or down as the test says."""

    def __init__(self) -> None:
        self.url = ""
        self.answer = TAKEN
        self.requests: list[tuple[WireRequest, int]] = []

    async def talk(self, _peer: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, answer = await read_request(reader), self.answer
        self.requests.append((request, answer.status))
        writer.write(http_bytes(answer))
        await writer.drain()

    def messages(self, *, taken: bool = True) -> list[AlertMessage]:
        """Messages that were taken, or refused, in the order in which they came; a second delivery is there again."""
        wanted = TAKEN.status if taken else DOWN.status
        return [
            msgspec.json.decode(request.body, type=AlertMessage)
            for request, status in self.requests
            if status == wanted
        ]

    def heard(self, type_: str, rule: Rule, subject: str) -> bool:
        return any(
            (message.type, message.data.rule, message.data.subject) == (type_, rule, subject)
            for message in self.messages()
        )

    def assert_genuine(self) -> None:
        """All are signed by the secret of alerts, and the same message has the same bytes each time."""
        bodies = defaultdict(set)
        for request, _ in self.requests:
            Webhook(SECRET).verify(request.body, request.headers)
            bodies[request.headers["webhook-id"]].add(request.body)
        assert {len(each) for each in bodies.values()} == {1}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with serving(receiver.talk) as peer:
        receiver.url = f"{peer.url}/alerts"
        yield receiver


@asynccontextmanager
async def alerting(home: Path, receiver: Receiver) -> AsyncIterator[Scenario]:
    """A stack whose processes all know the address; two workers are wanted."""
    settings = {
        "ALERT_URL": receiver.url,
        "ALERT_SECRET": SECRET,
        "ALERT_INTERVAL_S": "0.3",
        "ALERT_LOOKS": "2",
        "ALERT_WORKERS_MIN": "2",
        "RECONCILE_AT": "off",
        "LEASE_S": "1.5",
        "NOTIFY_TIMEOUT_S": "1",
    }
    accounts = {"sandbox": "sandbox", SILENT: "sandbox"}
    stack = Stack(
        home / f"alerts-{uuid4().hex}",
        unit_s=UNIT_S,
        workers=2,
        fsync=False,
        accounts=accounts,
        env=ENVIRONMENT | settings,
    )
    async with stack, running_scenario(stack) as scenario:
        yield scenario


# -- conditions, each with its end -------------------------------------------------------------------------------------


async def pay(scenario: Scenario, callback: str, count: int) -> None:
    """Payments that are judged at once: as if the channel had the money five minutes ago."""
    orders = await scenario.place_many(count, SILENT)
    for order in orders:
        await scenario.pay(order, callback)
    await scenario.until("paid", *orders)
    numbers = [order.order_no for order in orders]
    await scenario.db.execute(
        "UPDATE payments SET paid_at = paid_at - interval '125 s' WHERE order_no = ANY($1::text[])", numbers
    )


async def let_a_notification_die(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.pay(order, "none")
    await eventually(partial(scenario.was_notified, order, "order.paid"))
    sql = "UPDATE notifications SET delivered_at = NULL, dead_at = now() WHERE order_no = $1 AND type = 'order.paid'"

    async def has_died() -> bool:  # the end of its delivery may still be on its way
        return await scenario.db.execute(f"{sql} AND delivered_at IS NOT NULL", order.order_no) == 1

    await eventually(has_died)


async def resend(scenario: Scenario) -> None:
    body = {"dead_only": True, "reason": "the endpoint is back"}
    response = await scenario.post("/v1/notifications/resend", body)
    assert (response.status_code, response.json()["resent"]) == (200, 1), response.text


async def hold(scenario: Scenario, order: ShopOrder) -> None:
    """Somebody has the query of its payment, and does not do it."""
    sql = """UPDATE pending SET due_at = now() - interval '10 min', leased_at = now(),
                    leased_until = now() + interval '1 h', arm_no = arm_no + 1
              WHERE order_no = $1 AND kind = 'query' AND (leased_until IS NULL OR leased_until <= now())"""

    async def is_held() -> bool:
        return await scenario.db.execute(sql, order.order_no) == 1

    await eventually(is_held)


async def let_go(scenario: Scenario, order: ShopOrder) -> None:
    await scenario.db.execute("UPDATE pending SET leased_until = now() WHERE order_no = $1", order.order_no)


# -- the scenario ------------------------------------------------------------------------------------------------------


async def test_each_condition_is_told_once_with_its_all_clear(servers_home: Path) -> None:
    async with receiving() as receiver, alerting(servers_home, receiver) as scenario:
        conditions = {
            (Rule.CALLBACKS_SILENT, SILENT),
            (Rule.DEAD_LETTERS, scenario.stack.notify_url),
            (Rule.OVERDUE, "pending"),
        }
        receiver.answer = DOWN
        stuck = await scenario.place()
        await pay(scenario, "none", LAST_MAX)
        await asyncio.gather(pay(scenario, "lost", LAST_MAX), let_a_notification_die(scenario), hold(scenario, stuck))
        await eventually(lambda: max(Counter(one.id for one in receiver.messages(taken=False)).values(), default=0) > 1)
        assert receiver.messages() == []
        receiver.answer = TAKEN
        await until_heard(receiver, "alert.raised", conditions)

        await asyncio.gather(pay(scenario, "none", LAST_MIN + 1), resend(scenario), let_go(scenario, stuck))
        await until_heard(receiver, "alert.cleared", conditions)
        await killed_with_a_message_in_its_hands(scenario, receiver)

        receiver.assert_genuine()
        taken = Counter(one.id for one in receiver.messages())
        assert {*taken.values()} == {1}, "each message is taken once"
        assert {one.id for one in receiver.messages(taken=False)} <= {*taken}, "what was refused was taken later"
        pairs = Counter((str(one.type), one.data.rule, one.data.subject) for one in receiver.messages())
        assert {pairs[type_, *each] for type_, each in product(("alert.raised", "alert.cleared"), conditions)} == {1}


async def killed_with_a_message_in_its_hands(scenario: Scenario, receiver: Receiver) -> None:
    """The message is stored with the decision, so the death of whoever delivers it is one more thing to tell."""
    stack = scenario.stack
    keeper, other = stack.workers
    await other.kill()
    await until_heard(receiver, "alert.raised", {(Rule.WORKERS_GONE, "")})
    log = stack.apis[0].log.parent / "killed.log"
    async with Process("tests.scenarios.kill_at_step", "worker", "--at", AT, env=stack.environ, log=log) as killed:
        await killed.wait_for_line("worker_started")
        await keeper.kill()
        assert await killed.wait() == -SIGKILL
    held = await scenario.db.fetchval("SELECT id FROM alert_messages WHERE sent_at IS NULL ORDER BY position LIMIT 1")
    assert held is not None, "what it had in its hands is stored"
    await asyncio.gather(keeper.start(), other.start())
    await eventually(lambda: held in {one.id for one in receiver.messages()})

    async def is_all_heard() -> bool:  # workers may be missed once more before two are there again
        is_open = await scenario.db.fetchval("SELECT count(*) FROM alerts WHERE cleared_at IS NULL AND rule = $1", GONE)
        unsent = await scenario.db.fetchval("SELECT count(*) FROM alert_messages WHERE sent_at IS NULL")
        return (is_open, unsent) == (0, 0)

    await eventually(is_all_heard)


async def until_heard(receiver: Receiver, type_: str, conditions: set[tuple[Rule, str]]) -> None:
    await eventually(lambda: all(receiver.heard(type_, *each) for each in conditions))
