"""The example shop of `nodrop up`: what ships, and what it refuses."""

import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from demo.service import NO_TLS
from demo.shop.backend import Backend
from demo.shop.books import Books, Notification, NotifiedOrder, Sale
from demo.shop.catalogue import PRODUCTS, WAYS, subject_of
from demo.shop.handlers import Shop, routes
from simulator.kernel.simulation import Simulation
from simulator.kit.asgi import App
from simulator.kit.serve import serving
from simulator.merchant.signature import secret_bytes
from simulator.servers import serve_channels

SECRET = "whsec_" + b64encode(b"k" * 32).decode()
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 23, 13, tzinfo=UTC)
PAID = NotifiedOrder(order_no="tea-1", version=3, status="paid", amount=8888, currency="CNY")


def sale() -> Sale:
    return Sale(
        order_no="tea-1", subject="Tea", amount=8888, currency="CNY", account="sandbox", created_at=NOW, status="placed"
    )


@pytest.fixture
def books() -> Books:
    kept = Books()
    kept.add(sale())
    return kept


def take(books: Books, now: datetime = NOW, type_: str = "order.paid", **changes: object) -> Sale:
    assert books.take(Notification(type=type_, data=msgspec.structs.replace(PAID, **changes)), now)
    found = books.find("tea-1")
    assert found is not None
    return found


def test_a_repeated_notification_ships_once(books: Books) -> None:
    take(books)
    assert take(books, LATER).shipped_at == NOW


def test_another_version_of_a_paid_order_ships_nothing_more(books: Books) -> None:
    take(books)
    found = take(books, LATER, version=4)
    assert (found.shipped_at, found.needs_person) == (NOW, False)


def test_a_version_that_was_overtaken_changes_nothing(books: Books) -> None:
    """A dispute is heard before the payment: a person decides what happens to the goods."""
    take(books, type_="order.disputed", version=5)
    found = take(books)
    assert (found.version, found.shipped_at, found.needs_person) == (5, None, True)


@pytest.mark.parametrize("changes", [{"amount": 1}, {"currency": "USD"}, {"order_no": "tea-2"}])
def test_a_notification_of_other_terms_is_not_taken(books: Books, changes: dict[str, object]) -> None:
    assert not books.take(Notification(type="order.paid", data=msgspec.structs.replace(PAID, **changes)), NOW)
    found = books.find("tea-1")
    assert found is not None
    assert found.status == "placed"


def test_a_closed_order_ships_nothing(books: Books) -> None:
    assert take(books, type_="order.closed", status="closed").shipped_at is None


def test_a_subject_has_no_control_characters_and_fits() -> None:
    tea = PRODUCTS["tea"]
    assert subject_of(tea, "\x00 Ada\r\n\tB\u202e ") == "Longjing tea, 100 g for Ada B"
    assert len(subject_of(tea, "é" * 500)) <= 127
    assert subject_of(tea, " \n ") == tea.name


def test_there_is_a_way_at_every_channel_and_a_price_in_its_currency() -> None:
    assert {way.account for way in WAYS} == {"wechatpay", "alipay", "stripe", "paypal", "sandbox"}
    assert all(way.currency in product.prices for way in WAYS for product in PRODUCTS.values())


# -- over HTTP ---------------------------------------------------------------------------------------------------------


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    async with serve_channels() as (_, simulation):
        yield simulation


@pytest.fixture
async def shop(books: Books, simulation: Simulation) -> AsyncIterator[httpx.AsyncClient]:
    """The shop, with channels and without nodrop."""
    nowhere = "http://127.0.0.1:9"
    async with Backend(
        api_url=nowhere, api_key="k", channel_url=simulation.base_url, shop_url="http://127.0.0.1:8803"
    ) as backend:
        state = Shop(backend=backend, books=books, keys=(secret_bytes(SECRET),), origin=nowhere)
        async with (
            serving(App(routes(state))) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, verify=NO_TLS, timeout=60) as client,
        ):
            yield client


def signed(body: bytes, key: bytes = b64decode(SECRET.removeprefix("whsec_"))) -> dict[str, str]:
    at = str(int(time.time()))
    signature = hmac.digest(key, f"msg_1.{at}.".encode() + body, "sha256")
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


async def notify(shop: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> int:
    return (await shop.post("/notifications", content=body, headers=headers)).status_code


async def test_only_a_signed_notification_ships(shop: httpx.AsyncClient, books: Books) -> None:
    body = msgspec.json.encode({"id": "msg_1", "type": "order.paid", "data": PAID})
    found = books.find("tea-1")
    assert found is not None
    assert await notify(shop, body, {}) == 401
    assert await notify(shop, body, signed(body, b"x" * 32)) == 401
    assert await notify(shop, body + b" ", signed(body)) == 401
    assert found.shipped_at is None
    assert await notify(shop, body, signed(body)) == 200
    assert found.shipped_at is not None


async def test_what_is_signed_and_unreadable_or_unknown_is_not_acknowledged(shop: httpx.AsyncClient) -> None:
    assert await notify(shop, b"{}", signed(b"{}")) == 400
    body = msgspec.json.encode({"type": "order.paid", "data": msgspec.structs.replace(PAID, order_no="tea-2")})
    assert await notify(shop, body, signed(body)) == 404


FOREIGN = {"sec-fetch-site": "cross-site"}


async def test_a_form_of_another_site_buys_and_switches_nothing(
    shop: httpx.AsyncClient, books: Books, simulation: Simulation
) -> None:
    order = {"product": "tea", "account": "sandbox"}
    assert (await shop.post("/orders", data=order, headers=FOREIGN)).status_code == 403
    assert (await shop.post("/callbacks", data={"lost": "1"}, headers=FOREIGN)).status_code == 403
    assert (await shop.post("/orders/tea-1/place", headers=FOREIGN)).status_code == 403
    assert len(books.newest_first()) == 1
    assert simulation.faults.profile.lost == 0


async def test_the_switch_changes_the_lost_callbacks_alone_and_leads_back_to_the_shop(
    shop: httpx.AsyncClient, simulation: Simulation
) -> None:
    simulation.faults.profile = msgspec.structs.replace(simulation.faults.profile, slow=0.5)
    for back, leads_to in (("/orders", "/orders"), ("//evil.example", "/"), ("/\\evil.example", "/")):
        answer = await shop.post("/callbacks", data={"lost": "1", "back": back})
        assert (answer.status_code, answer.headers["location"]) == (303, leads_to)
        assert (simulation.faults.profile.lost, simulation.faults.profile.slow) == (1.0, 0.5)


async def test_an_order_stays_known_while_nodrop_does_not_answer(shop: httpx.AsyncClient, books: Books) -> None:
    answer = await shop.post("/orders", data={"product": "pot", "account": "paypal"})
    newest = books.newest_first()[0]
    assert answer.headers["location"] == f"/orders/{newest.order_no}"
    assert (newest.amount, newest.currency) == (3900, "USD")
    assert "Send the order again" in (await shop.get(answer.headers["location"])).text
    assert (await shop.post("/orders", data={"product": "gold", "account": "paypal"})).status_code == 400
