"""Both clients against real processes: api, worker, Postgres, Redis and a channel, with answers and processes lost."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from demo.stack import Stack
from nodrop_client import (
    AsyncClient,
    CasesQuery,
    Client,
    InvalidRequest,
    NewOrder,
    NewPayment,
    NotFound,
    Order,
    OrderConflict,
    OrderPaid,
    OrdersQuery,
    OrderStatus,
    PaymentStatus,
    Unauthorized,
    UnknownAccount,
)
from tests.clients.faulty_router import FaultyRouter
from tests.clients.receiver import Receiver, serving
from tests.servers import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

WATCH_S = 300.0
"""Ends a hang; what is waited for comes within a second or two."""


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stack.api_url, stack.api_key) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def router(stack: Stack) -> AsyncIterator[FaultyRouter]:
    async with FaultyRouter(int(stack.api_url.rpartition(":")[2])) as router:
        yield router


def new_order(**terms: object) -> NewOrder:
    fields = {"order_no": f"C-{uuid4().hex[:16]}", "amount": 8888, "currency": "CNY", "subject": "Tea", **terms}
    return NewOrder(**fields)  # type: ignore[arg-type]


async def pay(stack: Stack, order: Order) -> None:
    """The buyer pays, and the callback is lost."""
    path = f"/control/payments/{order.payments[0].out_trade_no}/pay"
    await stack.control("POST", "channel", path, {"at_fault": {"callback": "lost"}})


async def test_an_order_is_placed_paid_and_watched(stack: Stack, client: AsyncClient) -> None:
    new = new_order(account="sandbox", metadata={"cart": "茶 7"}, return_url="https://shop.example/thanks")
    placed = await client.place(new)
    assert (placed.status, placed.metadata, placed.is_definite) == (OrderStatus.PAYING, {"cart": "茶 7"}, False)
    assert placed.checkout is not None
    assert placed.checkout.kind == "redirect"

    watched = asyncio.create_task(client.watch(new.order_no, timeout_s=WATCH_S))
    await pay(stack, placed)
    paid = await watched
    assert (paid.status, paid.public_status, paid.paid_by is not None) == ("paid", "paid", True)
    assert paid.payments[0].status == PaymentStatus.PAID
    assert paid.payments[0].paid_at is not None
    assert paid.checkout is None

    assert (await client.refresh(new.order_no)).is_paid
    assert (await client.place(new)).version == paid.version
    kinds = [entry.kind for entry in await client.timeline(new.order_no)]
    assert "paid" in kinds
    with pytest.raises(OrderPaid):
        await client.start_payment(new.order_no, NewPayment(account="sandbox"))
    with pytest.raises(OrderPaid):
        await client.close_order(new.order_no)


async def test_the_client_without_an_event_loop_does_the_same(stack: Stack) -> None:
    new = new_order(account="sandbox")
    with Client(stack.api_url, stack.api_key) as client:
        placed = await asyncio.to_thread(client.place, new)
        await pay(stack, placed)
        paid = await asyncio.to_thread(client.watch, new.order_no, timeout_s=WATCH_S)
        assert paid.is_paid
        listed = await asyncio.to_thread(lambda: list(client.orders(OrdersQuery(status="paid", limit=1))))
        assert new.order_no in [order.order_no for order in listed]
        assert "paid" in [entry.kind for entry in await asyncio.to_thread(client.timeline, new.order_no)]


async def test_an_order_without_money_is_closed(client: AsyncClient) -> None:
    new = new_order(account="sandbox")
    await client.place(new)
    await client.close_order(new.order_no)
    closed = await client.watch(new.order_no, timeout_s=WATCH_S)
    assert (closed.status, closed.public_status, closed.payments[0].status) == ("closed", "closed", "closed")


async def test_an_order_without_a_checkout_gets_one_when_it_is_placed_again(stack: Stack, client: AsyncClient) -> None:
    """The channel is down: the order is there, and its payment has no link yet."""
    new = new_order(account="sandbox")
    await stack.control("PUT", "channel", "/control/faults", {"affected": ["create"], "answered_5xx": 1.0})
    try:
        placed = await client.place(new)
    finally:
        await stack.control("PUT", "channel", "/control/faults", {})
    assert (len(placed.payments), placed.checkout) == (1, None)

    async def has_a_checkout() -> bool:
        again = await client.place(new)
        return len(again.payments) == 1 and again.checkout is not None

    await eventually(has_a_checkout)


async def test_the_buyer_may_choose_among_accounts(client: AsyncClient) -> None:
    placed = await client.place(new_order(accounts=["sandbox"]))
    assert (placed.accounts, placed.payments, placed.checkout) == (("sandbox",), (), None)
    started = await client.start_payment(placed.order_no, NewPayment(account="sandbox"))
    assert started.checkout is not None


async def test_orders_of_several_pages_are_listed(client: AsyncClient) -> None:
    numbers = [(await client.place(new_order())).order_no for _ in range(5)]
    query = OrdersQuery(status="created", limit=2)
    listed = [order.order_no async for order in client.orders(query)]
    assert [number for number in listed if number in numbers] == numbers[::-1]
    first = await client.order_page(query)
    assert (len(first.orders), first.next_cursor is not None) == (2, True)


async def test_cases_are_listed(stack: Stack, client: AsyncClient) -> None:
    """The channel answers another amount: a person decides, and the order is not definite."""
    await stack.control("PUT", "channel", "/control/faults", {"affected": ["query"], "wrong_amount_in_query": 1.0})
    try:
        placed = await client.place(new_order(account="sandbox"))
        await pay(stack, placed)
        query = CasesQuery(order_no=placed.order_no)

        async def reasons() -> list[str]:
            return [case.reason async for case in client.cases(query)]

        assert await eventually(reasons) == ["amount_mismatch"]
        order = await client.get(placed.order_no)
        assert ([case.reason for case in order.open_cases], order.is_definite) == (["amount_mismatch"], False)
    finally:
        await stack.control("PUT", "channel", "/control/faults", {})


async def test_the_service_s_own_problems_are_errors(stack: Stack, client: AsyncClient) -> None:
    placed = await client.place(new_order())
    with pytest.raises(OrderConflict) as conflict:
        await client.place(new_order(order_no=placed.order_no, amount=1))
    assert "amount" in conflict.value.detail
    assert conflict.value.trace_id
    with pytest.raises(NotFound):
        await client.get("no-such-order")
    with pytest.raises(UnknownAccount):
        await client.start_payment(placed.order_no, NewPayment(account="nobody"))
    with pytest.raises(InvalidRequest):
        await client.place(new_order(amount=-1))
    async with AsyncClient(stack.api_url, "nk_wrong") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.get(placed.order_no)


async def test_an_order_whose_answer_was_lost_is_placed_once(stack: Stack, router: FaultyRouter) -> None:
    new = new_order(account="sandbox")
    router.losses = 2
    async with AsyncClient(router.url, stack.api_key) as client:
        placed = await client.place(new)
        assert router.forwarded == [b"POST /v1/orders"] * 3
        assert [payment.attempt_no for payment in placed.payments] == [1]
        kinds = [entry.kind for entry in await client.timeline(new.order_no)]
    assert kinds.count("placed") == 1
    ledger = await stack.control("GET", "channel", "/control/ledger")
    numbers = [payment["out_trade_no"] for payment in ledger["payments"]]
    assert numbers.count(placed.payments[0].out_trade_no) == 1


async def test_a_payment_whose_answer_was_lost_is_started_once(stack: Stack, router: FaultyRouter) -> None:
    async with AsyncClient(router.url, stack.api_key) as client:
        placed = await client.place(new_order())
        router.losses = 1
        started = await client.start_payment(placed.order_no, NewPayment(account="sandbox"))
    assert router.forwarded.count(f"POST /v1/orders/{placed.order_no}/payments".encode()) == 2
    assert len(started.payments) == 1


async def test_a_restart_of_the_service_is_waited_for(stack: Stack, router: FaultyRouter) -> None:
    """The process has ended, its router answers 503, and it is started while the client waits."""
    [api] = stack.apis
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await api.start()

    await api.stop()
    async with AsyncClient(router.url, stack.api_key, sleep=sleep) as client:
        placed = await client.place(new_order(account="sandbox"))
    assert (router.unavailable, len(pauses), placed.status) == (1, 1, "paying")
    assert pauses[0] >= 1, "Retry-After"


async def test_a_restart_is_no_end_of_a_watch(stack: Stack, router: FaultyRouter) -> None:
    [api] = stack.apis
    async with AsyncClient(router.url, stack.api_key) as client:
        placed = await client.place(new_order(account="sandbox"))
    await pay(stack, placed)
    await api.stop()

    async def sleep(seconds: float) -> None:
        if router.unavailable == 1:
            await api.start()
        await asyncio.sleep(min(seconds, 0.2))

    async with AsyncClient(router.url, stack.api_key, sleep=sleep) as client:
        assert (await client.watch(placed.order_no, timeout_s=WATCH_S)).is_paid
    assert router.unavailable == 1


async def test_a_notification_delivered_twice_has_one_effect(stack: Stack, client: AsyncClient, tmp_path: Path) -> None:
    """The first acknowledgement is lost, so the worker sends it again, with the same id and bytes."""
    receiver = Receiver(tmp_path / "shop.db", stack.notify_secret)
    receiver.losses = 1
    with serving(receiver):
        new = new_order(account="sandbox", notify_url=receiver.url)
        await pay(stack, await client.place(new))
        assert await asyncio.to_thread(receiver.repeated.wait, WATCH_S)
    first, second = receiver.deliveries[:2]
    assert (first.is_news, second.is_news, first.body == second.body) == (True, False, True)
    assert receiver.shipped() == [new.order_no]
