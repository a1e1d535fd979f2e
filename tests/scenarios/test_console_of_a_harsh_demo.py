"""After a harsh run people who have the console alone, in Chromium, know why every order is as it is and what comes
next, send what was not heard, and resolve every case; and every act of the console is done there, by the role that may.

The run is that of the program which has the API alone (`test_operated_over_http`). The processes begin once. While
shoppers come, people sign in and are given roles; all else waits until the work of the shoppers has settled. What the
pages say is compared with /v1 and the database, and what people did with the channels' ledger and the merchant.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import msgspec
import pyotp
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from api.console import texts
from api.pages.money import shown_amount
from core.case_choices import Choice
from core.operators import Role
from core.order import CaseReason
from demo.embedded import free_port
from demo.service import NO_TLS
from demo.stack import Stack
from demo.up import add_demo_operator
from simulator.shoppers.shop import ShopOrder
from tests.browser.conftest import browser, new_context
from tests.browser.shops import DESK
from tests.scenarios.console_person import BELOW, PATTERNS, ROLES, Person, Sent, row_of
from tests.scenarios.five_channels import late_money
from tests.scenarios.harsh_run import (
    SHOPPERS,
    Program,
    Row,
    check_is_told,
    harsh_stack,
    heard_by_merchant,
    paid_at_channel,
    shop,
)
from tests.scenarios.scenario import AMOUNT, Scenario, number_of, put_accounts
from tests.servers import eventually

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.long]

WORDS = texts.LANGUAGES["en"].texts
ADMIN, ANN, BEN, VERA = "demo", "ann", "ben", "vera"
STAFF = {ANN: Role.OPERATOR, BEN: Role.OPERATOR, VERA: Role.VIEWER}
LARGE = 600_000
"""More than one operator gives back alone."""

BOOKS = "books"
"""An account with few orders, whose statements people read."""

OTHER = "stripe"
"""An account at which an order of CNY may be paid once more."""


class Office:
    """The people, the stack that they work on, and what the others of its world see."""

    def __init__(
        self, stack: Stack, program: Program, scenario: Scenario, browser: Browser, rooms: AsyncExitStack
    ) -> None:
        self.stack = stack
        self.program = program
        self.scenario = scenario
        self.db = scenario.db
        self.shopping: asyncio.Task[None] | None = None
        self.people: dict[str, Person] = {}
        self.alerts: list[dict[str, Any]] = []
        self._browser = browser
        self._rooms = rooms
        self.crowd: list[Person] = []

    # -- people

    async def person(self, name: str, role: Role | None) -> Person:
        """Somebody at a browser of their own, who is not signed in."""
        options = {"viewport": DESK, "locale": "en-GB", "timezone_id": "UTC", "base_url": self.stack.api_url}
        context = await self._rooms.enter_async_context(new_context(self._browser, **options))
        person = await Person.come(context, name, role)
        self.crowd.append(person)
        return person

    async def newcomer(self, name: str, role: Role, one_time: str) -> Person:
        """Somebody who signs in with the password that was printed once, and chooses one."""
        person = await self.person(name, role)
        await person.sign_in(one_time)
        assert person.path == "/ops/me", "the password is good for one sign-in"
        await person.send("/ops/me/password", old=one_time, new=password_of(name), again=password_of(name))
        return person

    async def add(self, name: str, role: Role) -> str:
        """The admin adds an operator; the password on the page."""
        await self.admin.open("/ops/operators")
        await self.admin.send("/ops/operators", name=name, role=role.value)
        return await self.one_time()

    async def one_time(self) -> str:
        return str(await self.admin.page.locator("[aria-labelledby=once] code").first.inner_text())

    async def hire(self) -> None:
        """The admin signs in with the password of `nodrop demo`, and adds the others in the console."""
        self.people[ADMIN] = await self.newcomer(ADMIN, Role.ADMIN, await add_demo_operator(self.stack))
        for name, role in STAFF.items():
            self.people[name] = await self.newcomer(name, role, await self.add(name, role))
        self.people[""] = await self.person("", None)

    @property
    def admin(self) -> Person:
        return self.people[ADMIN]

    @property
    def ann(self) -> Person:
        return self.people[ANN]

    @property
    def ben(self) -> Person:
        return self.people[BEN]

    @property
    def vera(self) -> Person:
        return self.people[VERA]

    def of(self, role: Role | None) -> Person:
        return next(person for person in self.people.values() if person.role is role)

    @property
    def sent(self) -> list[Sent]:
        return [sent for person in self.crowd for sent in person.sent]

    # -- orders

    async def paid(self, account: str = "sandbox", **terms: Any) -> ShopOrder:
        order = await self.scenario.place(account, **terms)
        await self.scenario.pay(order, "none")
        await self.scenario.until("paid", order)
        return order

    async def unheard(self) -> ShopOrder:
        """A paid order of which the merchant does not hear: its notification is given up."""
        await self.scenario.merchant_faults(gone=1.0)
        order = await self.paid()
        await eventually(partial(self.db.fetchval, DEAD, order.order_no))
        await self.scenario.merchant_faults()
        return order

    async def paid_late(self) -> ShopOrder:
        """A closed order whose money has come, and waits for a person."""
        order = await late_money(self.scenario, "sandbox")
        await eventually(partial(self.db.fetchval, CASE, order.order_no, "paid_late"))
        return order

    async def paid_twice(self) -> tuple[ShopOrder, int]:
        """An order that was paid at two accounts, and the number of its case."""
        order = await self.paid()
        first = await self.scenario.place()
        await self.scenario.put_off(first)
        twice = await self.scenario.add_payment(first, OTHER)
        page = await self.scenario.http.get(twice.payments[1].pay_url or "", follow_redirects=True)
        assert page.status_code == 200, order
        await self.scenario.pay(twice, "lost", nth=2)  # before the first one's callback has it closed
        await self.scenario.pay(twice, "none", nth=1)
        case_id = await eventually(partial(self.db.fetchval, CASE, first.order_no, "double_payment"))
        return first, int(case_id)

    async def paid_elsewhere(self) -> str:
        """The number of a payment that another system has made; no callback tells of it."""
        number = f"elsewhere-{uuid4().hex[:12]}"
        await self.scenario.create_outside(number)
        lost = {"at_fault": {"callback": "event_never_generated"}}
        await self.stack.control("POST", "channel", f"/control/payments/{number}/pay", lost)
        return number

    async def gone_back(self, order: ShopOrder, amount: int) -> None:
        """Wait until the buyer has this much again."""

        async def is_back() -> bool:
            return bool(await self.db.fetchval(REFUNDED, order.order_no) == amount)

        await eventually(is_back)


DEAD = "SELECT id FROM notifications WHERE order_no = $1 AND dead_at IS NOT NULL AND delivered_at IS NULL"
CASE = "SELECT id FROM cases WHERE order_no = $1 AND reason = $2 AND resolved_at IS NULL"
REFUNDED = "SELECT coalesce(sum(amount), 0) FROM refunds WHERE order_no = $1 AND status = 'succeeded'"
STATE = "SELECT status, amount, currency FROM orders WHERE order_no = $1"


def password_of(name: str) -> str:
    return f"a kettle for the tea of {name}"


@asynccontextmanager
async def listening(port: int, heard: list[dict[str, Any]]) -> AsyncIterator[None]:
    """Listen for alerts."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                heard.append(msgspec.json.decode(await reader.readexactly(int(length[1]) if length else 0)))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def office(servers_home: Path, browser: Browser) -> AsyncIterator[Office]:
    port, alerts = free_port(), list[dict[str, Any]]()
    env = {
        "OPS": "1",
        "OPS_REFUND_ALONE_MAX": "5000 CNY, 5000 USD, 500000 JPY, 5000 KWD",
        "ALERT_URL": f"http://127.0.0.1:{port}/alerts",
        "ALERT_SECRET": "whsec_" + "A" * 43 + "=",
    }
    async with (
        listening(port, alerts),
        harsh_stack(servers_home / f"console-{uuid4().hex}", **env) as (stack, program),
        httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http,
        AsyncExitStack() as rooms,
    ):
        db = await stack.open_database()
        rooms.push_async_callback(db.close)
        scenario = Scenario(stack, db, http)
        rooms.push_async_callback(scenario.aclose)
        office = Office(stack, program, scenario, browser, rooms)
        office.alerts = alerts
        office.shopping = asyncio.create_task(shop(stack))
        try:
            await office.hire()
            yield office
        finally:
            office.shopping.cancel()
            await asyncio.gather(office.shopping, return_exceptions=True)
        assert [error for person in office.crowd for error in person.errors] == []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def calm(office: Office) -> Office:
    """The same after the shoppers: their work has settled, and nothing goes wrong any more."""
    assert office.shopping is not None
    await office.shopping
    await office.ann.open(f"/ops/days/sandbox/{datetime.now(UTC).date()}")
    await office.ann.send("/read")  # a worker reads it beside what follows, for the pages of runs
    return office


# -- what every order's page says --------------------------------------------------------------------------------------

READ = """() => {
  const text = (each) => each.textContent.trim().replace(/\\s+/g, " ");
  return {
    head: text(document.querySelector(".total")),
    next: [...document.querySelectorAll(".steps > li")].map((each) => [
      text(each.querySelector(".status")), text(each.querySelector("a") ?? each.querySelector("bdi")),
    ]),
    story: [...document.querySelectorAll(".story > li summary")].map(text),
    main: text(document.querySelector("main")),
  };
}"""


CODES: dict[str, set[str]] = {}
"""The words of the console for the codes that the sentences of /v1 have."""

for key, text in WORDS.items():
    prefix = re.match(r"reason\.|outcome\.|dispute_kind\.|callbacks\.kind_|callbacks\.verdict_", key)
    if prefix:
        CODES.setdefault(key.removeprefix(prefix[0]), set()).add(text)


def in_words(text: str) -> re.Pattern[str]:
    """The sentence of /v1 as the console has it: a code may stand there in words."""
    parts = (
        f"(?:{'|'.join(map(re.escape, sorted({part, *CODES.get(part, ())})))})" for part in re.split(r"(\w+)", text)
    )
    return re.compile("".join(parts).replace("\\ ", r"\s+"))


async def orders_in_the_list(person: Person) -> list[str]:
    """The addresses of all orders, page by page."""
    await person.open("/ops/orders")
    found: list[str] = []
    while True:
        found += await person.links('tbody a[href^="/ops/orders/"]')
        if not await person.page.locator("a[rel=next]").count():
            return found
        await person.follow("a[rel=next]")


async def read_order(office: Office, person: Person, address: str) -> Row:
    """Read the page of an order, and compare it with /v1 and the database. Returns the order with its story."""
    order_no = address.rpartition("/")[2]
    story = await office.program.get(f"/v1/orders/{order_no}/story")
    while True:
        await person.open(address)
        page = await person.page.evaluate(READ)
        before, story = story, await office.program.get(f"/v1/orders/{order_no}/story")
        if before == story:  # the order has not moved while it was read
            break
    view = await office.program.get(f"/v1/orders/{order_no}")
    row = await office.db.fetchrow(STATE, order_no)
    assert row is not None
    status, amount, currency = row
    amount_shown = shown_amount(amount, currency, texts.money_language("en"))
    for words in (WORDS[f"orders.status_{status}"], " ".join(amount_shown.split())):
        assert words in page["head"], order_no
    assert (view["status"], view["amount"], view["currency"]) == (status, amount, currency)
    for shown, entry in zip(page["story"], story["entries"], strict=True):
        assert in_words(entry["text"]).fullmatch(shown), (order_no, shown, entry["text"])
    for (waits, shown), step in zip(page["next"], story["next"], strict=True):
        assert waits == WORDS[f"order.waits_{step['waits_for']}"], order_no
        assert in_words(step["text"]).fullmatch(shown), (order_no, shown, step["text"])
    for payment in view["payments"]:
        assert payment["out_trade_no"] in page["main"], order_no
    return view | story


async def test_the_page_of_every_order_says_why_it_is_so_and_what_comes_next(calm: Office) -> None:
    """Read by somebody who may only read. Its facts are those of /v1 and of the database, and explain the ledger."""
    await calm.scenario.put_off(await calm.scenario.place())
    await calm.paid_late()
    addresses = await orders_in_the_list(calm.vera)
    paid_numbers = await paid_at_channel(calm.stack)
    kinds: Counter[str] = Counter()
    fates: Counter[str] = Counter()
    for address in addresses:
        story = await read_order(calm, calm.vera, address)
        check_is_told(story, paid_numbers)
        kinds.update({entry["kind"] for entry in story["entries"]})
        fates.update({story["status"], *(step["kind"] for step in story["next"])})
    assert len(addresses) == len(await calm.program.pages("/v1/orders", "orders")) >= SHOPPERS
    assert {"paid", "closed", "paying", "case_waits", "delivery_dead", "query_due", "buyer_pays"} <= fates.keys()
    assert {"paid", "closed", "paid_late", "double_payment", "callback_refused", "delivered"} <= kinds.keys()


# -- every act ---------------------------------------------------------------------------------------------------------


class Deed(NamedTuple):
    """Acts of the console as people do them. `do` says in its docstring what has changed, and holds it."""

    acts: tuple[str, ...]
    do: Callable[[Office], Awaitable[None]]


OWN: list[Deed] = []
"""Deeds that need no order."""

DEEDS: list[Deed] = []
"""Deeds after the shoppers."""


def deed(deeds: list[Deed], *acts: str) -> Callable[[Callable[[Office], Awaitable[None]]], None]:
    """Put what follows into the table: it does these acts."""

    def put(do: Callable[[Office], Awaitable[None]]) -> None:
        deeds.append(Deed(acts, do))

    return put


@deed(OWN, "/ops/operators", "/ops/signin", "/ops/me/password", "/ops/me/sessions/{session_id}/end")
async def a_session_is_ended_from_another(office: Office) -> None:
    """The admin adds somebody, who signs in twice, chooses a password, and ends the first session from the second."""
    first = await office.newcomer("cleo", Role.VIEWER, await office.add("cleo", Role.VIEWER))
    second = await office.person("cleo", Role.VIEWER)
    await second.sign_in(password_of("cleo"))
    await second.open("/ops/me")
    other = second.page.locator("tr:not(:has(.status.good)) form").first
    await second.send(await other.get_attribute("action") or "")
    await first.open("/ops")
    assert (first.path, second.path) == ("/ops/signin", "/ops/me")


@deed(OWN, "/ops/me/codes", "/ops/me/codes/confirm", "/ops/me/codes/remove", "/ops/me/look", "/ops/signout")
async def codes_and_looks_are_set(office: Office) -> None:
    """Codes are needed from the first on, and no more once they are taken away; the page is Chinese and dark."""
    dora = await office.newcomer("dora", Role.VIEWER, await office.add("dora", Role.VIEWER))
    await dora.send("/ops/me/codes", password=password_of("dora"))
    secret = await dora.page.locator("[data-copy]").first.get_attribute("data-copy") or ""
    await dora.send("/ops/me/codes/confirm", code=pyotp.TOTP(secret).at(int(time.time())))
    assert await office.db.fetchval("SELECT totp IS NOT NULL FROM operators WHERE name = 'dora'")
    later = pyotp.TOTP(secret).at(int(time.time()) + 30)
    await dora.send("/ops/me/codes/remove", password=password_of("dora"), code=later)
    assert await office.db.fetchval("SELECT totp IS NULL FROM operators WHERE name = 'dora'")
    await dora.send("/ops/me/look", language="zh", theme="dark")
    assert await dora.page.locator("html[lang=zh][data-theme=dark]").count()
    await dora.send("/ops/signout")
    await dora.open("/ops")
    assert dora.path == "/ops/signin"


@deed(
    OWN,
    "/ops/operators/{name}/role",
    "/ops/operators/{name}/disable",
    "/ops/operators/{name}/enable",
    "/ops/operators/{name}/reset",
)
async def an_operator_changes_roles_is_out_and_comes_back(office: Office) -> None:
    """With each of them the operator's sessions end; the reset gives a password that is good once."""
    emil = await office.newcomer("emil", Role.VIEWER, await office.add("emil", Role.VIEWER))
    for act, fields in {"role": {"role": "operator"}, "disable": {}, "enable": {}, "reset": {}}.items():
        await office.admin.open("/ops/operators/emil")
        await office.admin.send(f"/ops/operators/emil/{act}", **fields)
    one_time = await office.one_time()
    await emil.open("/ops")
    assert emil.path == "/ops/signin"
    await emil.send("/ops/signin", name="emil", password=one_time)
    assert (emil.path, await emil.page.locator(".who .role").inner_text()) == ("/ops/me", WORDS["role.operator"])


@deed(DEEDS, "/ops/orders/find")
async def an_order_is_found_by_the_channels_number(office: Office) -> None:
    """Its page opens."""
    order = await office.paid()
    transaction = (await office.scenario.ledger_payment(order)).transaction_id
    await office.vera.open("/ops/orders")
    await office.vera.send("/ops/orders/find", number=f" {transaction} ")
    assert office.vera.path == f"/ops/orders/{order.order_no}"


@deed(DEEDS, "/ops/orders/{order_no}/query")
async def the_channel_is_asked_now(office: Office) -> None:
    """The order is paid, long before its next query."""
    order = await office.scenario.place()
    await office.scenario.put_off(order)
    await office.scenario.pay(order, "lost")
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('main a[href$="/query"]')
    await office.ann.send("/query")
    await office.scenario.until("paid", order)
    assert await office.scenario.paid_by(order) == "operator"


@deed(DEEDS, "/ops/orders/{order_no}/close")
async def an_order_is_ended(office: Office) -> None:
    """It is closed, here and at its channel."""
    order = await office.scenario.place()
    await office.scenario.put_off(order)
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('main a[href$="/close"]')
    await office.ann.send("/close")
    await office.scenario.until("closed", order)
    assert (await office.scenario.ledger_payment(order)).status == "closed"


@deed(DEEDS, "/ops/orders/{order_no}/accept")
async def late_money_is_accepted(office: Office) -> None:
    """The closed order is paid, its case is resolved, and the merchant hears of it."""
    order = await office.paid_late()
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('main a[href$="/accept"]')
    await office.ann.send("/accept")
    await office.scenario.until("paid", order)
    await eventually(partial(office.scenario.was_notified, order, "order.paid"))
    assert await office.scenario.cases(number_of(order)) == []


@deed(DEEDS, "/ops/orders/{order_no}/refund/{number}")
async def money_goes_back_in_parts(office: Office) -> None:
    """A part, and then all that is left."""
    order = await office.paid()
    for amount, back in {"12.50": 1250, "": AMOUNT}.items():
        await office.ann.open(f"/ops/orders/{order.order_no}")
        await office.ann.follow('main a[href*="/refund/"]')
        if amount:
            await office.ann.look(amount=amount)
        await office.ann.send(f"/refund/{number_of(order)}")
        await office.gone_back(order, back)


async def wanted_back(office: Office) -> tuple[ShopOrder, str]:
    """An order whose refund ann has asked for, and the address of the approval for which it waits."""
    order = await office.paid(amount=LARGE)
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('main a[href*="/refund/"]')
    await office.ann.send(f"/refund/{number_of(order)}")
    assert office.ann.path == "/ops/approvals"
    [address] = await office.ann.links(f'tr:has(a[href$="{order.order_no}"]) a[href^="/ops/approvals/"]')
    await office.ann.open(address)
    assert await office.ann.page.locator("main form.act").count() == 0, "nobody agrees to what they asked for"
    return order, address


@deed(DEEDS, "/ops/approvals/{approval_id}/approve")
async def a_second_operator_agrees_to_a_large_refund(office: Office) -> None:
    """Only then the money goes back."""
    order, address = await wanted_back(office)
    await office.ben.open(f"/ops/orders/{order.order_no}")
    await office.ben.follow(f'.steps a[href="{address}"]')
    await office.ben.send("/approve")
    await office.gone_back(order, LARGE)


@deed(DEEDS, "/ops/approvals/{approval_id}/decline")
async def a_second_operator_declines_a_large_refund(office: Office) -> None:
    """No refund was ever made, and the order says who declined."""
    order, address = await wanted_back(office)
    await office.ben.open(address)
    await office.ben.send("/decline")
    await office.vera.open(f"/ops/orders/{order.order_no}")
    assert BEN in " ".join((await office.vera.page.evaluate(READ))["story"])
    assert await office.db.fetchval("SELECT count(*) FROM refunds WHERE order_no = $1", order.order_no) == 0


@deed(DEEDS, "/ops/lookup", "/ops/orders/{order_no}/attach")
async def money_of_an_unknown_number_is_attached(office: Office) -> None:
    """It pays the order that ann names; what the channel says about the number stands on the page before."""
    number, scenario = await office.paid_elsewhere(), office.scenario
    order = await scenario.place()
    await scenario.put_off(order)
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('main a[href$="/attach"]')
    await office.ann.send("/ops/lookup", account="sandbox", number=number)
    await office.ann.reads("88.88")
    await office.ann.send("/attach")
    await scenario.until("paid", order)
    paid_by = "SELECT paid_by_out_trade_no FROM orders WHERE order_no = $1"
    assert await office.db.fetchval(paid_by, order.order_no) == number


@deed(DEEDS, "/ops/cases/{id}/assign")
async def a_case_is_taken_given_to_another_and_given_back(office: Office) -> None:
    """Each sees who works on it; in the end nobody does."""
    _, case_id = await office.paid_twice()
    assignee = partial(office.db.fetchval, "SELECT assignee FROM cases WHERE id = $1", case_id)
    await office.ann.open(f"/ops/cases/{case_id}")
    await office.ann.send(f"/ops/cases/{case_id}/assign")
    assert await assignee() == ANN
    await office.ann.open(f"/ops/cases/{case_id}")
    await office.ann.send(f"/ops/cases/{case_id}/assign", having="assignee", assignee=BEN)
    assert await assignee() == BEN
    await office.ben.open("/ops/cases?whose=mine")
    await office.ben.follow(f'tbody a[href="/ops/cases/{case_id}"]')
    await office.ben.send(f"/ops/cases/{case_id}/assign", having="nobody")
    assert await assignee() is None


@deed(DEEDS, "/ops/cases/{id}/resolve")
async def cases_are_resolved_by_a_note_and_by_a_refund(office: Office) -> None:
    """One is over, its order says by whom and why, and no money has moved; the second payment of the other order goes
    back, and its case is over with it.
    """
    noted, case_id = await office.paid_twice()
    await office.ann.open(f"/ops/cases/{case_id}")
    await office.ann.follow('main .actions a[href$="/resolve"]')
    await office.ann.follow('main a[href*="choice=note"]')
    await office.ann.send("/resolve", reason="the buyer wanted two cups")
    await office.vera.open(f"/ops/orders/{noted.order_no}")
    await office.vera.reads("the buyer wanted two cups")
    assert await office.db.fetchval("SELECT count(*) FROM refunds WHERE order_no = $1", noted.order_no) == 0

    refunded, case_id = await office.paid_twice()
    await office.ann.open(f"/ops/orders/{refunded.order_no}")
    await office.ann.follow(f'.steps a[href="/ops/cases/{case_id}"]')
    await office.ann.follow('main .actions a[href$="/resolve"]')
    await office.ann.follow('main a[href*="choice=refund"]')
    await office.ann.send("/resolve")
    await office.gone_back(refunded, AMOUNT)
    await eventually(partial(office.db.fetchval, "SELECT resolved_at FROM cases WHERE id = $1", case_id))


@deed(DEEDS, "/ops/notifications/{notification_id}/resend")
async def a_notification_that_was_given_up_is_sent_again(office: Office) -> None:
    """The merchant hears of it, from the order's own next step on."""
    order = await office.unheard()
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('.steps a[href^="/ops/notifications/"]')
    await office.ann.send("/resend")
    await eventually(partial(office.scenario.was_notified, order, "order.paid"))


async def send_all_again(office: Office) -> None:
    """Send again all that were given up, if there are any, and wait until the merchant has heard of each paid order."""
    await office.ann.open("/ops/notifications?status=dead")
    if await office.ann.links('tbody a[href^="/ops/notifications/"]'):
        await office.ann.follow('main a[href="/ops/notifications/resend"]')
        await office.ann.send("/ops/notifications/resend")
    paid = {row["order_no"] for row in await office.db.fetch("SELECT order_no FROM orders WHERE status = 'paid'")}

    async def are_heard() -> bool:
        return paid <= await heard_by_merchant(office.stack)

    await eventually(are_heard)


@deed(DEEDS, "/ops/notifications/resend")
async def all_that_were_given_up_are_sent_again(office: Office) -> None:
    """No paid order is left of which the merchant has not heard, also of those of the shoppers. Then all of an
    endpoint since an instant: the merchant gets one twice, and one effect of it.
    """
    await office.unheard()
    await send_all_again(office)
    since = datetime.now(UTC)
    again = await office.paid()
    await eventually(partial(office.scenario.was_notified, again, "order.paid"))
    await office.ann.open("/ops/notifications/resend")
    await office.ann.look(what="all", endpoint=office.stack.notify_url, since=since.isoformat())
    await office.ann.send("/ops/notifications/resend")

    async def is_twice() -> bool:
        return len(await office.scenario.deliveries(again)) > 1

    await eventually(is_twice)


@deed(DEEDS, "/ops/endpoints/pause", "/ops/endpoints/resume")
async def an_endpoint_is_paused_and_resumed(office: Office) -> None:
    """Meanwhile nothing is sent there, and the order says so; then all of it is."""
    endpoint = office.stack.notify_url
    await office.ann.open("/ops/endpoints")
    await office.ann.follow(f'main a:has-text("{endpoint}")')
    await office.ann.send("/ops/endpoints/pause")
    order = await office.paid()
    await office.vera.open(f"/ops/orders/{order.order_no}")
    assert "paused" in str((await office.vera.page.evaluate(READ))["next"])
    assert await office.scenario.deliveries(order) == []
    await office.ann.send("/ops/endpoints/resume")
    await eventually(partial(office.scenario.was_notified, order, "order.paid"))


@deed(DEEDS, "/ops/callbacks/{callback_id}/raw")
async def the_raw_body_of_a_callback_is_read(office: Office) -> None:
    """It is on the page, and in the audit stands who wanted it."""
    order = await office.paid()
    await office.ann.open(f"/ops/orders/{order.order_no}")
    await office.ann.follow('main tbody a[href^="/ops/callbacks/"]')
    callback_id = office.ann.path.rpartition("/")[2]
    await office.ann.send("/raw")
    assert number_of(order) in await office.ann.page.locator("pre.raw").inner_text()
    audited = "SELECT count(*) FROM audit WHERE by = $1 AND subject = $2"
    assert await office.db.fetchval(audited, ANN, callback_id) == 1


@deed(
    DEEDS,
    "/ops/days/{account}/{day}/upload",
    "/ops/days/{account}/{day}/read",
    "/ops/days/{account}/{day}/sign-off",
    "/ops/statements/{id}/confirm",
)
async def statements_are_read_and_a_day_is_signed_off(office: Office) -> None:
    """A file with five mistakes is only compared at first; confirmed, each is a case. The channel's own statement
    comes to the same page, and yesterday, a day without money, is signed off.
    """
    await put_accounts(office.stack, office.db, {BOOKS: {"late_policy": "flag", "double_policy": "flag"}})
    orders = [await office.paid(BOOKS) for _ in range(5)]
    day = datetime.now(UTC).date()
    file = office.stack.directory / "statement.csv"
    file.write_text(await statement_with_mistakes(office, orders))
    await office.ann.open(f"/ops/days/{BOOKS}/{day}")
    await office.ann.send("/upload", file=file)
    await office.ann.page.locator('form[action$="/confirm"]').wait_for()
    assert await office.db.fetchval("SELECT count(*) FROM cases WHERE channel_account = $1", BOOKS) == 0
    await office.ann.send("/confirm")

    async def reasons() -> set[str]:
        rows = await office.db.fetch("SELECT reason FROM cases WHERE channel_account = $1", BOOKS)
        return {row["reason"] for row in rows}

    async def are_opened() -> bool:
        return await reasons() >= {
            "statement_amount",
            "statement_currency",
            "statement_transaction",
            "statement_duplicate",
        }

    await eventually(are_opened)
    await office.ann.open(f"/ops/days/{BOOKS}/{day}")
    await office.ann.send("/read")
    await office.ann.page.locator('form[action$="/confirm"]').wait_for()
    await office.ann.open(f"/ops/days/{BOOKS}/{day - timedelta(days=1)}")
    await office.ann.send("/sign-off")
    signed = "SELECT by FROM sign_offs WHERE channel_account = $1 AND day = $2"
    assert await office.db.fetchval(signed, BOOKS, day - timedelta(days=1)) == ANN


async def statement_with_mistakes(office: Office, orders: list[ShopOrder]) -> str:
    """A statement of the day: one row is right, the others have another amount, currency or transaction, or stand
    there twice.
    """
    lines = ["type,out_trade_no,transaction_id,refund_no,amount,currency,at"]
    for nth, order in enumerate(orders):
        paid = await office.scenario.ledger_payment(order)
        assert paid.paid_at is not None
        amount, currency, transaction = AMOUNT, "CNY", paid.transaction_id
        match nth:
            case 1:
                amount += 1
            case 2:
                currency = "USD"
            case 3:
                transaction = "another"
        at = f"{paid.paid_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        line = f"payment,{number_of(order)},{transaction},,{amount},{currency},{at}"
        lines += [line, line] if order is orders[-1] else [line]
    return "\n".join(lines) + "\n"


async def switch(office: Office, account: str, act: str) -> None:
    """Switch an account off or on: its page offers the one that it is not."""
    await office.ann.open(f"/ops/accounts/{account}")
    assert await office.ann.links('main .acts a[href$="able"]') == [f"/ops/accounts/{account}/{act}"]
    await office.ann.follow(f'main a[href$="/{act}"]')
    await office.ann.send(f"/{act}")


@deed(DEEDS, "/ops/accounts/{name}/disable", "/ops/accounts/{name}/enable")
async def an_account_is_switched_off_and_on(office: Office) -> None:
    """Meanwhile no payment is begun there."""
    enabled = partial(office.db.fetchval, "SELECT enabled FROM accounts WHERE name = 'wechatpay'")
    for act, is_on in {"disable": False, "enable": True}.items():
        await switch(office, "wechatpay", act)
        assert await enabled() is is_on


@deed(DEEDS, "/ops/alerts/test")
async def a_test_of_the_alerts_is_sent(office: Office) -> None:
    """It arrives where alerts are heard, and names the admin."""
    await office.admin.open("/ops/alerts")
    await office.admin.send("/ops/alerts/test")

    async def has_come() -> bool:
        return any(alert["type"] == "alert.test" and ADMIN in str(alert) for alert in office.alerts)

    await eventually(has_come)


async def check_deed(office: Office, deed: Deed) -> None:
    before = len(office.sent)
    seen = {id(sent) for sent in office.sent}
    await deed.do(office)
    sent = [each for each in office.sent if id(each) not in seen]
    assert len(office.sent) - before == len(sent) > 0
    assert {each.status for each in sent} <= {200, 303}, sent
    first = {each.act: each for each in reversed(sent)}
    assert set(deed.acts) <= first.keys()
    for act in deed.acts:
        role = ROLES["POST", act]
        if role is not None and BELOW[role] is not None:
            await office.of(BELOW[role]).is_refused(first[act])


def names(deed: Deed) -> str:
    return deed.do.__name__


@pytest.mark.parametrize("deed", OWN, ids=names)
async def test_what_needs_no_order_is_done_by_its_role_and_refused_to_others(office: Office, deed: Deed) -> None:
    await check_deed(office, deed)


@pytest.mark.parametrize("deed", DEEDS, ids=names)
async def test_an_act_is_done_in_the_browser_by_its_role_and_refused_to_others(calm: Office, deed: Deed) -> None:
    await check_deed(calm, deed)


def test_every_act_of_the_console_is_in_the_table() -> None:
    """A new row of the table of routes needs a deed here."""
    assert Counter(act for deed in (*OWN, *DEEDS) for act in deed.acts) == Counter(PATTERNS["POST"].keys())


# -- every page --------------------------------------------------------------------------------------------------------

LEADS_TO = re.compile(r'(?:href|src|data-live|data-address)="(/ops[^"#]*)')
ADDRESSES_MAX = 4
"""Addresses of each page that are looked at for links to other pages."""

ORDER, ORDERS_MAX = "/ops/orders/{order_no}", 100
"""Orders differ in what they offer."""


async def found_by_links(person: Person) -> dict[str, str]:
    """Every page that links lead to from the overview on, with the first address of each; all are answered 200."""
    waiting, seen = ["/ops"], {"/ops"}
    opened: Counter[str] = Counter()
    first: dict[str, str] = {}
    while waiting:
        address = waiting.pop(0)
        row = row_of("GET", address)
        opened[row] += 1
        if not row or opened[row] > (ORDERS_MAX if row == ORDER else ADDRESSES_MAX):
            continue
        answer = await person.page.request.get(address)
        assert answer.status == 200, (address, await answer.text())
        first.setdefault(row, address)
        if "text/html" in answer.headers.get("content-type", ""):
            new = dict.fromkeys(map(unescape, LEADS_TO.findall(await answer.text())))
            waiting += [each for each in new if each not in seen]
            seen |= new.keys()
    return first


async def test_every_page_is_reached_by_links_and_opens_for_its_role_alone(calm: Office) -> None:
    """From the overview, without an address to know. Everybody else is refused, and no page breaks in the browser."""
    await calm.paid_late()
    open_ = await calm.scenario.place()
    await calm.scenario.put_off(open_)
    await wanted_back(calm)
    await eventually(partial(calm.db.fetchval, "SELECT count(*) FROM reconciliations"))
    await switch(calm, "alipay", "disable")
    first = await found_by_links(calm.admin)
    await switch(calm, "alipay", "enable")
    assert first.keys() == PATTERNS["GET"].keys() - {"/ops/signin"}
    for row, address in first.items():
        role = ROLES["GET", row]
        if role is None:
            continue
        for person in (calm.vera, calm.ann):
            status = (await person.page.request.get(address)).status
            assert status == (200 if person.role is not None and person.role.may(role) else 403), (address, person.name)
        answer = await calm.people[""].page.request.get(address, max_redirects=0)
        assert (answer.status, "/ops/signin" in answer.headers.get("location", "")) in {(303, True), (401, False)}
        answer = await calm.admin.page.request.get(address)
        if (await answer.text()).lstrip().lower().startswith("<!doctype html>"):
            await calm.admin.open(address)
            assert await calm.admin.page.locator("h1").count() == 1, address
    assert calm.admin.errors == []


# -- every case --------------------------------------------------------------------------------------------------------

INSERT = """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
VALUES ($1, 'sandbox', $2, $3, 'as if it had been found')"""
UNDER_WAY = "SELECT count(*) FROM refunds WHERE status IN ('requested', 'processing')"
OPEN = "SELECT id, reason FROM cases WHERE resolved_at IS NULL ORDER BY opened_at, id"


async def answer(person: Person, case_id: int, *, notes: bool, order_no: str) -> Choice | None:
    """Answer a case by the first choice that is possible as things stand; the last one is a note, which always is.
    None: it is over. Money that is unknown is of this order.
    """
    await person.open(f"/ops/cases/{case_id}/resolve")
    if person.path == f"/ops/cases/{case_id}":
        return None
    choices = await person.links('main a[href*="choice="]')
    for address in choices[-1:] if notes else choices:
        if address not in await person.links("main a[aria-current]"):
            await person.open(address)
        choice = Choice(address.rpartition("=")[2])
        if choice is Choice.ATTACH:
            await person.send("/resolve", having="look", order_no=order_no)
        if await person.page.locator("main form.act").count():
            await person.send("/resolve", having="case_version")
            return choice
    raise AssertionError(f"no choice fits case {case_id}: {await person.text()}")


async def with_every_reason(office: Office) -> str:
    """Open a case of every reason that no shopper has caused, beside an order that is paid or, where that is so, open;
    one is about money of an unknown number. Returns the order that this may be of.
    """
    await office.paid_late()
    there = {row["reason"] for row in await office.db.fetch(OPEN)}
    assert "double_payment" in there
    paid, still_open, unknown = await office.paid(), await office.scenario.place(), await office.paid_elsewhere()
    await office.scenario.put_off(still_open)
    for reason in CaseReason:
        if reason is CaseReason.STATEMENT_UNCLAIMED:
            await office.db.execute(INSERT, None, unknown, reason.value)
        elif reason.value not in there:
            order = still_open if reason is CaseReason.ATTEMPTS_EXHAUSTED else paid
            await office.db.execute(INSERT, order.order_no, number_of(order), reason.value)
    return still_open.order_no


async def test_every_kind_of_case_is_resolved_in_the_console(calm: Office) -> None:
    """Two operators work through the inbox until it is empty, and then no order waits for a person any more."""
    await send_all_again(calm)
    order_no = await with_every_reason(calm)
    answered: Counter[Choice] = Counter()

    async def work(person: Person, mine: list[int], *, notes: bool) -> None:
        for case_id in mine:
            choice = await answer(person, case_id, notes=notes, order_no=order_no)
            if choice is not None:
                answered[choice] += 1

    async def are_refunded() -> bool:
        return bool(await calm.db.fetchval(UNDER_WAY) == 0)

    for notes in (False, True):
        ids = [row["id"] for row in await calm.db.fetch(OPEN)]
        await asyncio.gather(*(work(each, ids[nth::2], notes=notes) for nth, each in enumerate((calm.ann, calm.ben))))
        await eventually(are_refunded)
    assert answered.keys() == {*Choice}
    await calm.vera.open("/ops/cases")
    await calm.vera.reads(WORDS["cases.nothing"])
    for story in (await calm.program.stories()).values():
        assert not [step for step in story["next"] if step["waits_for"] == "person" and not step["approval_id"]], story


async def test_nothing_was_lost_meanwhile(calm: Office) -> None:
    """The ledger of the channels, the effects at the merchant and the rows agree, and no log holds what it must not."""
    await send_all_again(calm)
    resolved = await calm.db.fetch("SELECT DISTINCT order_no FROM cases WHERE by IS NOT NULL")
    await calm.scenario.settle(answered={row["order_no"] for row in resolved})
