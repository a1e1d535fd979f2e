"""Shoppers: each kind does what it is called for, on the channel's real page, and tells honestly what it saw."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from simulator.kit.asgi import App, Response
from simulator.kit.serve import serving
from simulator.shoppers.plan import Kind, Plan, kind_of, order_of
from simulator.shoppers.shop import OrderRequest, Refused, Shop, ShopOrder
from simulator.shoppers.visits import PageKind, PageView, Visit, run
from tests.simulator.conftest import Channel
from tests.simulator.fake_nodrop import FakeNodrop

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def session_nodrop() -> AsyncIterator[FakeNodrop]:
    small = FakeNodrop()
    async with serving(App(small.routes())) as url:
        small.url = url
        yield small


@pytest_asyncio.fixture(loop_scope="session")
async def nodrop(session_nodrop: FakeNodrop, channel: Channel) -> FakeNodrop:
    session_nodrop.begin(channel.api)
    return session_nodrop


@pytest_asyncio.fixture(loop_scope="session")
async def shop(nodrop: FakeNodrop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr("simulator.shoppers.shop.GAP_FIRST_S", 0.001)
    monkeypatch.setattr("simulator.shoppers.shop.GAP_MAX_S", 0.002)
    monkeypatch.setattr("simulator.shoppers.visits.PAY_GAP_S", 0.005)
    async with Shop(nodrop.url, "key-1") as open_shop:
        yield open_shop


def plan(kind: Kind | None = None, **changed: Any) -> Plan:
    usual = Plan(
        shoppers=1,
        accounts=("main", "spare"),
        notify_url="http://127.0.0.1:9/notifications",
        weights=dict.fromkeys(Kind, 1.0) if kind is None else {kind: 1.0},
        watch_s=0.2,
    )
    return replace(usual, **changed)


async def only(shop: Shop, kind: Kind, **changed: Any) -> Visit:
    (visit,) = await run(shop, plan(kind, **changed), concurrency=1)
    assert visit.kind is kind
    return visit


def seen(visit: Visit) -> list[tuple[PageKind, str]]:
    return [(sight.where, sight.status) for sight in visit.sights]


async def paid_at_the_channel(channel: Channel) -> set[str]:
    return {row.out_trade_no for row in (await channel.ledger()).payments if row.status == "paid"}


async def test_who_pays_at_once_has_paid(shop: Shop, channel: Channel) -> None:
    visit = await only(shop, Kind.PAYS_AT_ONCE)
    assert await paid_at_the_channel(channel) == set(visit.paid) == set(visit.out_trade_nos)
    assert seen(visit) == [(PageKind.STATUS, "paid")]
    assert visit.sights[0].since_paying_s is not None


async def test_who_walks_away_has_looked_and_not_paid(shop: Shop, channel: Channel) -> None:
    visit = await only(shop, Kind.WALKS_AWAY)
    assert (visit.placed, visit.paid, visit.sights) == (True, (), ())
    assert channel.simulation.traffic.counters["pages_shown"] == 1
    assert await paid_at_the_channel(channel) == set()


async def test_who_pays_late_pays_just_before_the_expiry(shop: Shop, channel: Channel) -> None:
    visit = await only(shop, Kind.PAYS_LATE, expires_in_s=1, late_margin_s=0.8)
    payment = await channel.payment(visit.paid[0])
    assert payment.paid_at is not None
    assert payment.created_at is not None
    assert 0.1 < (payment.paid_at - payment.created_at).total_seconds() < 1


async def test_who_pays_twice_pays_both_pages(shop: Shop, channel: Channel) -> None:
    visit = await only(shop, Kind.PAYS_TWICE)
    assert len(visit.paid) == 2
    assert await paid_at_the_channel(channel) == set(visit.paid)


async def test_who_has_only_agreed_has_not_paid_and_was_not_refused(shop: Shop, channel: Channel) -> None:
    """Where the channel takes the money later the buyer has done everything, and goes back to the shop like anybody."""
    await channel.faults(settles_later=1, settle_after_s=600)
    visit = await only(shop, Kind.COMES_BACK)
    assert (visit.agreed, visit.paid, visit.refused) == (visit.out_trade_nos, (), ())
    assert await paid_at_the_channel(channel) == set()
    assert seen(visit)[0][0] is PageKind.RETURN
    assert {sight.since_paying_s for sight in visit.sights} == {None}


async def test_second_payment_may_be_refused(shop: Shop, nodrop: FakeNodrop) -> None:
    nodrop.fault = lambda what: (409, "payment_unclear") if what == "add" else None
    visit = await only(shop, Kind.PAYS_TWICE)
    assert visit.refused == ("second: 409 payment_unclear",)
    assert len(visit.paid) == 1


async def test_who_comes_back_sees_everything(shop: Shop, nodrop: FakeNodrop) -> None:
    visit = await only(shop, Kind.COMES_BACK)
    assert [where for where, _ in seen(visit)] == ["return", "page", "status", "refresh", "status", "page"]
    assert nodrop.page_requests == [
        "return",
        "page token=abc",
        "page token=abc",
        "status?token=abc GET",
        "refresh?token=abc POST",
        "status?token=abc GET",
        "page token=abc",
    ]


async def test_returning_buyer_watches_for_the_planned_time(shop: Shop, nodrop: FakeNodrop) -> None:
    nodrop.shown_status = lambda _: "processing"
    visit = await only(shop, Kind.COMES_BACK)
    assert seen(visit).count((PageKind.STATUS, "processing")) == 3
    assert visit.wrong_views == ()


@pytest.mark.parametrize("wrong_status", ["unpaid", "failed", "closed", "created"])
async def test_page_with_a_wrong_status_after_the_payment_is_reported(
    shop: Shop, nodrop: FakeNodrop, wrong_status: str
) -> None:
    nodrop.shown_status = lambda _: wrong_status
    visit = await only(shop, Kind.PAYS_AT_ONCE)
    assert [view.status for view in visit.wrong_views] == [wrong_status]


async def test_unpaid_before_the_payment_is_correct() -> None:
    assert not PageView(where=PageKind.STATUS, http_status=200, status="unpaid").is_wrong


async def test_buyer_reloads_a_page_that_does_not_open(
    shop: Shop, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first three requests for the page fail."""
    requests = iter(range(100))

    def off(_: object) -> Response | None:
        return Response(status=503) if next(requests) < 3 else None

    monkeypatch.setattr("simulator.kernel.pay_page.switched_off", off)
    visit = await only(shop, Kind.PAYS_AT_ONCE)
    assert await paid_at_the_channel(channel) == set(visit.paid) != set()


async def test_buyer_who_presses_in_vain_looks_before_pressing_again(
    shop: Shop, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, pressed without an answer, opened again, pressed: four requests of the page."""
    requests = iter([None, Response(status=502), None, None, None])
    monkeypatch.setattr("simulator.kernel.pay_page.switched_off", lambda _: next(requests))
    visit = await only(shop, Kind.PAYS_AT_ONCE)
    assert await paid_at_the_channel(channel) == set(visit.paid) != set()


async def test_buyer_gives_up_and_says_so(shop: Shop, channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.kernel.pay_page.switched_off", lambda _: Response(status=503))
    visit = await only(shop, Kind.PAYS_AT_ONCE)
    assert (visit.paid, visit.refused) == ((), ("pay: 503",))
    assert await paid_at_the_channel(channel) == set()


# -- the shop ----------------------------------------------------------------------------------------------------------


def request() -> OrderRequest:
    return order_of(plan(), 0)


async def test_shop_uses_its_key_and_reads_the_order(shop: Shop, nodrop: FakeNodrop) -> None:
    order = await shop.place(request())
    assert isinstance(order, ShopOrder)
    assert order.payments[0].pay_url is not None
    assert nodrop.keys == ["Bearer key-1"]


async def test_shop_asks_again_under_the_same_number_until_it_is_definite(shop: Shop, nodrop: FakeNodrop) -> None:
    spoilt = iter([(500, "internal_error"), (503, "channel_unavailable"), (429, "too_many_requests"), None])
    nodrop.fault = lambda _: next(spoilt)
    assert isinstance(await shop.place(request()), ShopOrder)
    assert (shop.attempts, len(nodrop.orders)) == (4, 1)


async def test_shop_takes_no_for_an_answer(shop: Shop, nodrop: FakeNodrop) -> None:
    nodrop.fault = lambda _: (422, "payment_refused")
    refused = await shop.place(request())
    assert refused == Refused(http_status=422, code="payment_refused", is_definite=True)
    assert shop.attempts == 1


@pytest.mark.parametrize("status", [500, 503, 408])
async def test_shop_gives_up_at_last(shop: Shop, nodrop: FakeNodrop, status: int) -> None:
    nodrop.fault = lambda _: (status, "unavailable")
    refused = await shop.place(request())
    assert refused == Refused(http_status=status, code="unavailable", is_definite=False)
    assert shop.attempts == 12


async def test_shop_without_a_server_gives_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.shoppers.shop.GAP_MAX_S", 0.001)
    async with Shop("http://127.0.0.1:9", "key-1") as nobody:
        refused = await nobody.place(request())
    assert refused == Refused(http_status=0, code="", is_definite=False)


# -- the plan ----------------------------------------------------------------------------------------------------------


async def test_plan_is_the_same_in_every_run() -> None:
    of_seed = {seed: [(kind_of(p, n), order_of(p, n)) for n in range(50)] for seed in (1, 2) for p in [plan(seed=seed)]}
    assert of_seed[1] == [(kind_of(plan(seed=1), n), order_of(plan(seed=1), n)) for n in range(50)]
    assert [kind for kind, _ in of_seed[1]] != [kind for kind, _ in of_seed[2]]
    assert len({order.order_no for _, order in of_seed[1]}) == 50


async def test_kinds_come_by_their_weights() -> None:
    weights = {Kind.PAYS_AT_ONCE: 3.0, Kind.WALKS_AWAY: 1.0, Kind.PAYS_TWICE: 0.0}
    counts = Counter(kind_of(plan(weights=weights), n) for n in range(2000))
    assert set(counts) == {Kind.PAYS_AT_ONCE, Kind.WALKS_AWAY}
    assert 1400 < counts[Kind.PAYS_AT_ONCE] < 1600


async def test_amounts_stay_within_their_bounds() -> None:
    amounts = {order_of(plan(amount_min=5, amount_max=7), n).amount for n in range(100)}
    assert amounts == {5, 6, 7}


async def test_a_crowd_gets_through_in_the_order_of_its_index(shop: Shop, channel: Channel) -> None:
    progress: list[Visit] = []
    crowd = plan(shoppers=25, expires_in_s=1, late_margin_s=0.9)
    visits = await run(shop, crowd, concurrency=8, on_progress=progress.append)
    assert [visit.order_no for visit in visits] == [f"shop-0-{n}" for n in range(25)]
    assert len(progress) == 25
    assert {visit.kind for visit in visits} == set(Kind)
    assert {number for visit in visits for number in visit.paid} == await paid_at_the_channel(channel)
    assert not [visit for visit in visits if visit.wrong_views or not visit.placed]
