"""Acts on orders and money in the console: what each would do, its form, and two operators at the same time."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from html import unescape
from typing import NoReturn
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace

from core.acts import Line
from core.errors import NotPossible
from core.operators import Role
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.audit import Filters, find_acts, list_acts
from storage.postgres.orders import find_state
from tests.api.conftest import Channel, terms
from tests.api.console.conftest import ConsoleClient, SignedIn
from tests.api.driver import Client, Response

HIDDEN = re.compile(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)">')
REASON = {"reason": "one cup was broken"}
UNKNOWN = "INSERT INTO cases (reason, channel_account, out_trade_no) VALUES ('unknown_order', 'main', $1) RETURNING id"


class Order:
    """A paid order."""

    def __init__(self, order_no: str, number: str) -> None:
        self.order_no = order_no
        self.number = number
        self.page = f"/ops/orders/{order_no}"
        self.refund = f"{self.page}/refund/{number}"


Paid = Callable[[], Awaitable[Order]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ops_refund_alone_max="20 CNY")


@pytest.fixture
async def paid(client: Client, account: str, channel: Channel) -> Paid:
    async def make() -> Order:
        placed = (await client.post("/v1/orders", terms(account=account))).json
        order = Order(placed["order_no"], placed["payments"][0]["out_trade_no"])
        await channel.pay(order.number)
        await client.post(f"/v1/orders/{order.order_no}/refresh")
        return order

    return make


def text_of(response: Response) -> str:
    """The words of a page."""
    return unescape(re.sub(r"<[^>]+>", "", response.body.decode()))


def form_of(response: Response, action: str) -> dict[str, str]:
    """The hidden fields of the form that is sent to this address."""
    page = response.body.decode()
    form = page[page.index(f'method="post" action="{action}"') :]
    return {name: unescape(value) for name, value in HIDDEN.findall(form[: form.index("</form>")]) if name != "csrf"}


async def refunds(resources: Resources, order: Order) -> list[int]:
    state = await find_state(resources.db, order.order_no)
    assert state is not None
    return [refund.amount for refund in state.refunds]


async def sent(client: ConsoleClient, address: str, page: Response, **more: str) -> Response:
    """Send the form of the page, with a reason; the answer."""
    return await client.post(address, form_of(page, address) | REASON | more)


# -- refunds -----------------------------------------------------------------------------------------------------------


async def test_a_part_is_refunded_by_the_key_that_the_page_carries(
    signed_in: SignedIn, paid: Paid, resources: Resources
) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR, "anna")
    page = await anna.get(f"{order.refund}?amount=12.50")
    assert page.status == 200
    words = text_of(page)
    for line in ("go back to the buyer", "76.38", "The order stays paid.", "This money has paid the order."):
        assert line in words
    assert await refunds(resources, order) == []

    for _ in range(2):  # the form is sent twice
        answer = await sent(anna, order.refund, page)
        assert (answer.status, answer.headers["location"]) == (303, order.page), text_of(answer)
    assert await refunds(resources, order) == [1250]
    [row, *_] = await list_acts(resources.db, limit=1)
    assert (row.by, row.via, row.action, row.subject) == ("anna", "console", "order.refund", order.order_no)
    assert row.detail["reason"] == REASON["reason"]


async def test_an_order_that_moved_shows_the_new_preview_and_nothing_is_done(
    signed_in: SignedIn, paid: Paid, resources: Resources
) -> None:
    order, anna, ben = await paid(), await signed_in(Role.OPERATOR, "anna"), await signed_in(Role.OPERATOR, "ben")
    first, second = await anna.get(f"{order.refund}?amount=15"), await ben.get(f"{order.refund}?amount=5")
    assert (await sent(anna, order.refund, first)).status == 303
    outdated = await sent(ben, order.refund, second)
    assert (outdated.status, "The order has changed since you looked" in text_of(outdated)) == (409, True)
    assert await refunds(resources, order) == [1500]
    assert (await sent(ben, order.refund, outdated)).status == 303
    assert await refunds(resources, order) == [1500, 500]


@pytest.mark.parametrize(("language", "words"), [("en", "at the channel"), ("zh", "渠道退款号")])
async def test_a_refund_is_shown_with_the_channels_own_number_and_found_by_it(
    signed_in: SignedIn, paid: Paid, resources: Resources, language: str, words: str
) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR, "anna")
    assert (await sent(anna, order.refund, await anna.get(f"{order.refund}?amount=15"))).status == 303
    for path in (order.page, order.refund):
        assert f"r{order.number}" in text_of(await anna.get(path, accept_language=language))
    await resources.db.execute("UPDATE refunds SET status = 'processing', channel_refund_no = '5030-1'")
    for path in (order.page, order.refund):
        page = await anna.get(path, accept_language=language)
        assert words in text_of(page)
        assert (
            '<code>5030-1</code></bdi><button type="button" class="quiet unready" data-copy="5030-1">'
            in page.body.decode()
        )
    found = await anna.get("/ops/orders?number=5030-1")
    assert (found.status, found.headers.get("location")) == (303, order.page)


async def test_what_cannot_be_refunded_has_no_button(signed_in: SignedIn, paid: Paid) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR)
    page = await anna.get(f"{order.refund}?amount=88.89")
    assert "So much is not left" in text_of(page)
    assert 'class="act"' not in page.body.decode()
    refused = await anna.post(order.refund, {"amount": "88.89", **REASON})
    assert (refused.status, "So much is not left" in text_of(refused)) == (409, True)
    for wrong in ("1.001", "x", "0"):
        assert (await anna.get(f"{order.refund}?amount={wrong}")).status == 400
    assert (await anna.get(f"{order.page}/refund/none")).status == 404
    assert (await anna.get("/ops/orders/none/refund/none")).status == 404


async def test_above_the_limit_a_second_operator_decides(signed_in: SignedIn, paid: Paid, resources: Resources) -> None:
    order, anna, ben = await paid(), await signed_in(Role.OPERATOR, "anna"), await signed_in(Role.OPERATOR, "ben")
    page = await anna.get(order.refund)
    assert "waits for a second operator" in text_of(page)
    waiting = await sent(anna, order.refund, page)
    assert (waiting.status, waiting.headers["location"]) == (303, "/ops/approvals")
    inbox = await ben.get("/ops/approvals")
    [number] = re.findall(r'href="/ops/approvals/(\d+)"', inbox.body.decode())
    assert "one cup was broken" in text_of(inbox)
    address = f"/ops/approvals/{number}"

    waits = "A refund of 88.88 CNY, asked for by anna, waits for a second operator"
    shown = await ben.get(order.page)
    assert (waits in text_of(shown), f'href="{address}"' in shown.body.decode()) == (True, True)
    read = await (await signed_in(Role.VIEWER, "vera")).get(order.page)
    assert (waits in text_of(read), f'href="{address}"' in read.body.decode()) == (True, False)

    own = await anna.get(address)
    assert "you have asked for this refund" in text_of(own)
    assert (await anna.post(f"{address}/approve", REASON)).status == 409
    assert await refunds(resources, order) == []

    assert "anna has asked for it" in text_of(await ben.get(address))
    approved = await ben.post(f"{address}/approve", REASON)
    assert (approved.status, approved.headers["location"]) == (303, "/ops/approvals")
    assert await refunds(resources, order) == [8888]
    late = await ben.post(f"{address}/decline", REASON)
    assert (late.status, "ben has decided already" in text_of(late)) == (409, True)
    assert "approved by ben" in text_of(await anna.get("/ops/approvals?state=all"))
    assert "No refund waits." in text_of(await anna.get("/ops/approvals"))
    assert "approved by ben" in text_of(await anna.get(order.refund))
    after = text_of(await anna.get(order.page))
    assert waits not in after
    assert "anna asks to give back 88.88 CNY: one cup was broken" in after


async def test_of_two_operators_on_one_approval_one_decides(
    signed_in: SignedIn, paid: Paid, resources: Resources
) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR, "anna")
    await sent(anna, order.refund, await anna.get(order.refund))
    ben, cleo = await signed_in(Role.OPERATOR, "ben"), await signed_in(Role.OPERATOR, "cleo")
    [number] = re.findall(r'href="/ops/approvals/(\d+)"', (await ben.get("/ops/approvals")).body.decode())
    answers = await asyncio.gather(
        ben.post(f"/ops/approvals/{number}/approve", REASON), cleo.post(f"/ops/approvals/{number}/decline", REASON)
    )
    assert sorted(answer.status for answer in answers) == [303, 409]
    assert "has decided already" in text_of(next(answer for answer in answers if answer.status == 409))
    assert (await ben.get("/ops/approvals/0")).status == (await ben.get("/ops/approvals/x")).status == 404
    assert await refunds(resources, order) in ([], [8888])


# -- the order's other acts --------------------------------------------------------------------------------------------


async def test_an_open_order_is_asked_about_and_ended(
    signed_in: SignedIn, client: Client, account: str, resources: Resources
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    page, anna = f"/ops/orders/{placed['order_no']}", await signed_in(Role.OPERATOR, "anna")
    for act, says in (("query", "1 payments are queried"), ("close", "Each of 1 open payments")):
        shown = await anna.get(f"{page}/{act}")
        assert says in text_of(shown)
        answer = await sent(anna, f"{page}/{act}", shown)
        assert (answer.status, answer.headers["location"]) == (303, page)
    state = await find_state(resources.db, placed["order_no"])
    assert state is not None
    assert state.order.status == "closed"
    notes = await resources.db.fetchval("SELECT note FROM order_events WHERE kind = 'close_requested'")
    assert notes == "by anna"
    again = await anna.get(f"{page}/close")
    assert "closed already" in text_of(again)
    assert [row.action for row in await list_acts(resources.db, limit=9)] == ["order.close", "order.query"]


async def test_an_order_that_is_paid_meanwhile_is_not_ended(
    signed_in: SignedIn, client: Client, account: str, channel: Channel
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    address, anna = f"/ops/orders/{placed['order_no']}/close", await signed_in(Role.OPERATOR)
    shown = await anna.get(address)
    await channel.pay(placed["payments"][0]["out_trade_no"])
    await client.post(f"/v1/orders/{placed['order_no']}/refresh")
    assert (await sent(anna, address, shown)).status == 409
    accept = await anna.get(f"/ops/orders/{placed['order_no']}/accept")
    assert "The order is paid already." in text_of(accept)


async def test_a_number_is_looked_up_and_its_money_attached(
    signed_in: SignedIn, client: Client, paid: Paid, resources: Resources
) -> None:
    elsewhere, anna = await paid(), await signed_in(Role.OPERATOR)
    question = {"account": "main", "number": elsewhere.number}
    assert (await anna.get("/ops/lookup")).status == 200
    assert f'href="/ops/orders/{elsewhere.order_no}"' in (await anna.post("/ops/lookup", question)).body.decode()
    for table in ("pending", "order_events", "payments", "orders"):
        await resources.db.execute(f"DELETE FROM {table} WHERE order_no = $1", elsewhere.order_no)  # noqa: S608 - ours
    placed = (await client.post("/v1/orders", terms())).json
    assert "paid, " in text_of(await anna.post("/ops/lookup", question))
    address = f"/ops/orders/{placed['order_no']}/attach"
    form = (await anna.get(address)).body.decode()
    assert f'<input type="hidden" name="order_no" value="{placed["order_no"]}">' in form
    page = await anna.post("/ops/lookup", {**question, "order_no": placed["order_no"]})
    assert "The order becomes paid by it" in text_of(page)
    assert (await sent(anna, address, page)).status == 303
    state = await find_state(resources.db, placed["order_no"])
    assert state is not None
    assert state.order.status == "paid"
    other = (await client.post("/v1/orders", terms())).json
    refused = await anna.post(
        f"/ops/orders/{other['order_no']}/attach", {"account": "main", "number": elsewhere.number, **REASON}
    )
    assert (refused.status, "known here" in text_of(refused)) == (409, True)
    assert "has a number of this form" in text_of(await anna.post("/ops/lookup", {"account": "main", "number": "a b"}))


async def test_each_question_to_a_channel_is_written_down(
    signed_in: SignedIn, client: Client, account: str, resources: Resources
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account, order_no="S-1"))).json
    sql = (
        "INSERT INTO cases (reason, channel_account, out_trade_no) VALUES ('unknown_order', 'main', 'n-3') RETURNING id"
    )
    case = f"/ops/cases/{await resources.db.fetchval(sql)}/resolve"
    anna = await signed_in(Role.OPERATOR)
    await anna.post("/ops/lookup", {"account": "main", "number": ""})
    await anna.post("/ops/lookup", {"account": "main", "number": "n-1"})
    await anna.post("/ops/lookup", {"account": "main", "number": "n-2", "order_no": placed["order_no"]})
    await anna.post(case, {"look": "true", "order_no": ""})
    await anna.post(case, {"look": "true", "order_no": placed["order_no"]})
    rows = await find_acts(resources.db, Filters(action="order.lookup"), limit=9)
    assert [(row.by, row.subject, row.detail) for row in rows] == [
        (anna.name, "S-1", {"account": "main", "number": "n-3"}),
        (anna.name, "S-1", {"account": "main", "number": "n-2"}),
        (anna.name, "main", {"account": "main", "number": "n-1"}),
    ]


async def test_no_page_asks_a_channel(
    signed_in: SignedIn, client: Client, account: str, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser may fetch a page that nobody wants to see."""
    placed = (await client.post("/v1/orders", terms(account=account))).json
    sql = (
        "INSERT INTO cases (reason, channel_account, out_trade_no) VALUES ('unknown_order', 'main', 'n-1') RETURNING id"
    )
    case = f"/ops/cases/{await resources.db.fetchval(sql)}/resolve"
    order_no = placed["order_no"]
    anna = await signed_in(Role.OPERATOR)
    queried: list[str] = []

    async def look_up(_: Resources, _account: str, number: str) -> NoReturn:
        queried.append(number)
        raise NotPossible(Line("attach.wrong_number", {"channel": "sandbox"}))

    monkeypatch.setattr("flows.attach.look_up", look_up)
    monkeypatch.setattr("api.console.lookup.look_up", look_up)
    question = {"account": "main", "number": "n-1", "order_no": order_no}
    for address, fields in (
        ("/ops/lookup", question),
        (f"/ops/orders/{order_no}/attach", question),
        (case, {"choice": "attach", "order_no": order_no, "look": "true"}),
    ):
        page = await anna.get(f"{address}?{urlencode(fields)}")
        assert (page.status, queried) == (200, []), address
        sent_form = await anna.post(case if address == case else "/ops/lookup", fields)
        assert "has a number of this form" in text_of(sent_form), address
        assert queried == ["n-1"], address
        queried.clear()
    assert len(await find_acts(resources.db, Filters(action="order.lookup"), limit=9)) == 3


# -- cases and accounts ------------------------------------------------------------------------------------------------


async def test_of_two_operators_on_one_case_the_second_is_told_who_was_first(
    signed_in: SignedIn, resources: Resources
) -> None:
    anna, ben = await signed_in(Role.OPERATOR, "anna"), await signed_in(Role.OPERATOR, "ben")
    sql = "INSERT INTO cases (reason, channel_account, detail) VALUES ('statement_total', 'main', '<b>') RETURNING id"
    address = f"/ops/cases/{await resources.db.fetchval(sql)}/resolve"
    page = await anna.get(address)
    assert "&lt;b&gt;" in page.body.decode()
    assert "Nothing else changes." in text_of(page)
    assert (await sent(anna, address, page)).headers["location"] == address.removesuffix("/resolve")
    late = await sent(ben, address, page)
    assert (late.status, "anna has resolved case" in text_of(late)) == (409, True)
    assert 'method="post" action="/ops/cases' not in late.body.decode()
    assert (await ben.get(address)).headers["location"] == address.removesuffix("/resolve")
    assert (await ben.get("/ops/cases/0/resolve")).status == (await ben.get("/ops/cases/x/resolve")).status == 404


async def test_a_case_offers_what_fits_it(signed_in: SignedIn, paid: Paid, resources: Resources) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR)
    sql = """INSERT INTO cases (reason, channel_account, out_trade_no, order_no)
             VALUES ('double_payment', 'main', $1, $2) RETURNING id"""
    address = f"/ops/cases/{await resources.db.fetchval(sql, order.number, order.order_no)}/resolve"
    page = await anna.get(address)
    assert "waits for a second operator" in text_of(page)
    assert (await sent(anna, address, page)).headers["location"] == "/ops/approvals"
    note = await anna.get(f"{address}?choice=note")
    assert "resolved with your reason" in text_of(note)
    wrong = await anna.get(f"{address}?choice=accept")
    assert "no answer to a case of this kind" in text_of(wrong)
    assert (await anna.get(f"{address}?choice=forget")).status == 400


async def test_the_page_of_a_case_begins_with_the_first_answer_that_is_possible(
    signed_in: SignedIn, paid: Paid, resources: Resources
) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR)
    for reason, chosen in (("attempts_exhausted", "note"), ("double_payment", "refund"), ("unknown_order", "attach")):
        sql = """INSERT INTO cases (reason, channel_account, out_trade_no, order_no)
                 VALUES ($1, 'main', $2, $3) RETURNING id"""
        named = None if chosen == "attach" else order.order_no
        here = f"/ops/cases/{await resources.db.fetchval(sql, reason, order.number, named)}/resolve"
        page = (await anna.get(here)).body.decode()
        assert f'href="{here}?choice={chosen}" aria-current="true"' in page, reason


async def test_a_case_is_answered_by_a_refund_in_part(signed_in: SignedIn, paid: Paid, resources: Resources) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR, "anna")
    sql = """INSERT INTO cases (reason, channel_account, out_trade_no, order_no)
             VALUES ('refund_failed', 'main', $1, $2) RETURNING id"""
    address = f"/ops/cases/{await resources.db.fetchval(sql, order.number, order.order_no)}/resolve"
    for wrong in ("12.505", "0", "-1", "x"):
        assert (await anna.get(f"{address}?choice=refund&amount={wrong}")).status == 400, wrong
    page = await anna.get(f"{address}?choice=refund&amount=12.50")
    assert "12.50" in text_of(page)
    assert await refunds(resources, order) == []
    for _ in range(2):  # the form is sent twice
        answer = await sent(anna, address, page)
        assert (answer.status, answer.headers["location"]) == (303, address.removesuffix("/resolve")), text_of(answer)
    assert await refunds(resources, order) == [1250]
    [row, *_] = await list_acts(resources.db, limit=1)
    assert (row.action, row.detail["choice"], row.detail["amount"]) == ("case.resolve", "refund", 1250)


async def test_an_account_is_switched_off_and_on(signed_in: SignedIn, account: str, resources: Resources) -> None:
    anna = await signed_in(Role.ADMIN)
    for act in ("disable", "enable"):
        page = await anna.get(f"/ops/accounts/{account}/{act}")
        answer = await sent(anna, f"/ops/accounts/{account}/{act}", page)
        assert (answer.status, answer.headers["location"]) == (303, f"/ops/accounts/{account}")
        enabled = await resources.db.fetchval("SELECT enabled FROM accounts WHERE name = $1", account)
        assert enabled is (act == "enable")
    assert (await anna.get("/ops/accounts/none/disable")).status == 404


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_every_page_is_there_in_each_language(signed_in: SignedIn, paid: Paid, lang: str) -> None:
    order, anna = await paid(), await signed_in(Role.OPERATOR)
    await sent(anna, order.refund, await anna.get(order.refund))
    inbox = await anna.get("/ops/approvals?state=all", accept_language=lang)
    [number] = re.findall(r'href="/ops/approvals/(\d+)"', inbox.body.decode())
    for address in (
        order.refund,
        f"/ops/approvals/{number}",
        "/ops/lookup",
        *(f"{order.page}/{act}" for act in ("query", "close", "accept", "attach")),
    ):
        page = await anna.get(address, accept_language=lang)
        assert (page.status, f'lang="{lang}"' in page.body.decode()) == (200, True), address
