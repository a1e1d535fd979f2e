"""The pages of an order: visible with its token, and not without it."""

import asyncio
import re
from typing import Any

import pytest

from api.pages import assets
from api.pages.handlers import CSP
from api.pages.texts import TEXTS, choose
from core.errors import DatabaseUnavailable
from core.money import decimal_text
from runtime.resources import Resources
from tests.api.conftest import Channel, expire_tokens, terms, token_of
from tests.api.driver import Client, Response

WORDS_THAT_FRIGHTEN = re.compile(r"unpaid|not paid|fail|error|declined|expired|未支付|失败", re.IGNORECASE)


async def place(client: Client, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/orders", terms(**more))
    assert response.status == 201, response.body
    order: dict[str, Any] = response.json
    return order


def heading(page: Response) -> str:
    found = re.search(r'<h1 id="title">(.*?)</h1>', page.body.decode())
    assert found is not None
    return found[1]


# -- the page ----------------------------------------------------------------------------------------------------------


async def test_the_page_says_processing_until_the_channel_says_paid(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    order = await place(client, account=account)
    address = f"/o/{token_of(order)}"
    before = await buyer.get(address)
    assert heading(before) == "Payment processing"
    assert not WORDS_THAT_FRIGHTEN.search(before.body.decode())
    await channel.pay(order["payments"][0]["out_trade_no"])
    assert (await buyer.get(f"{address}/return")).headers["location"] == address
    after = (await buyer.get(address)).body.decode()
    assert ">Paid</h1>" in after
    assert ">¥88.88</p>" in after
    assert '<form id="refresh" method="post" action' in after
    assert " hidden><button" in after, "there is nothing left to refresh"


async def test_a_return_takes_no_answer_from_before_it(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    """The page was refreshed a moment ago, and the buyer has paid since."""
    order = await place(client, account=account)
    address = f"/o/{token_of(order)}"
    await buyer.post(f"{address}/refresh", {})
    await channel.pay(order["payments"][0]["out_trade_no"])
    await buyer.get(f"{address}/return")
    assert heading(await buyer.get(address)) == "Paid"


async def test_the_page_says_preparing_before_there_is_anything_to_pay(client: Client, buyer: Client) -> None:
    assert heading(await buyer.get(f"/o/{token_of(await place(client))}")) == "Preparing payment"


async def test_a_closed_order_is_called_closed_only_when_it_is(client: Client, buyer: Client) -> None:
    order = await place(client)
    await client.post(f"/v1/orders/{order['order_no']}/close")
    status = (await buyer.get(f"/o/{token_of(order)}/status")).json
    assert (status["status"], status["definite"]) == ("closed", True)
    page = await buyer.get(f"/o/{token_of(order)}")
    assert heading(page) == "Closed"
    assert " hidden><button" not in page.body.decode(), "money may come after the close: the channel can be asked again"


async def test_who_paid_another_amount_for_a_closed_order_is_not_told_that_nothing_came(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    order = await place(client, account=account)
    address = f"/o/{token_of(order)}"
    assert (await client.post(f"/v1/orders/{order['order_no']}/close")).json["status"] == "closed"
    await channel.faults(wrong_amount_in_query=1.0)
    await channel.pay_late(order["payments"][0]["out_trade_no"])
    await buyer.get(f"{address}/return")
    status = (await buyer.get(f"{address}/status")).json
    assert (status["status"], status["phase"]) == ("closed", "review"), "the words of a status stay"
    assert heading(await buyer.get(address)) == "Payment received, being checked"


async def test_the_page_is_complete_without_its_script(client: Client, buyer: Client) -> None:
    order = await place(client, return_url="https://shop.test/done?a=1&b=2")
    page = (await buyer.get(f"/o/{token_of(order)}")).body.decode()
    assert f'action="/o/{token_of(order)}/refresh"' in page
    assert '</script><meta http-equiv="refresh" content="10"></template>' in page, "also where the script is blocked"
    assert 'href="https://shop.test/done?a=1&amp;b=2"' in page
    assert 'aria-live="polite"' in page


async def test_text_of_others_is_text_and_never_markup(client: Client, buyer: Client) -> None:
    """A subject with a script, quotes and the end of everything."""
    evil = "\"'></script></p><script>alert(1)</script><img src=x onerror=alert(1)>"
    order = await place(client, subject=evil)
    page = await buyer.get(f"/o/{token_of(order)}")
    assert "<script>alert" not in page.body.decode()
    assert "<img" not in page.body.decode()
    assert page.body.decode().count("<script") == 2


async def test_pages_forbid_what_they_do_not_need(client: Client, buyer: Client) -> None:
    for target in (f"/o/{token_of(await place(client))}", "/o/shell", "/o/nobody-has-this-token"):
        headers = (await buyer.get(target)).headers
        assert headers["content-security-policy"] == CSP
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


async def test_the_language_is_the_readers(client: Client, buyer: Client) -> None:
    address = f"/o/{token_of(await place(client))}"
    assert heading(await buyer.get(address, accept_language="zh-CN,zh;q=0.9,en;q=0.8")) == "正在准备支付"
    assert heading(await buyer.get(f"{address}?lang=zh")) == "正在准备支付"
    assert heading(await buyer.get(f"{address}?lang=<script>", accept_language="en")) == "Preparing payment"


@pytest.mark.parametrize(
    ("requested", "accepted", "lang"),
    [("", "", "en"), ("zh", "en", "zh"), ("xx", "zh", "zh"), ("", "fr,zh;q=0.5,en;q=0.4", "zh"), ("", "zh;q=0", "en"),
     ("", "ZH-hans-CN", "zh"), ("", "en;q=0.9,zh;q=1.0", "zh"), ("", ";;q=,,zh;q=nan," * 50, "en")],
)  # fmt: skip
def test_a_language_is_always_chosen(requested: str, accepted: str, lang: str) -> None:
    assert choose(requested, accepted) == lang


def test_both_languages_say_everything_and_nothing_that_frightens() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for texts in TEXTS.values():
        assert not any(WORDS_THAT_FRIGHTEN.search(text) for name, text in texts.items() if "missing" not in name)


# -- status ------------------------------------------------------------------------------------------------------------


async def test_the_status_is_what_a_page_needs_and_nothing_more(client: Client, buyer: Client) -> None:
    order = await place(client, amount=123_456, currency="KWD")
    response = await buyer.get(f"/o/{token_of(order)}/status")
    assert response.json == {
        "status": "created",
        "phase": "created",
        "version": 1,
        "amount": 123_456,
        "currency": "KWD",
        "amount_text": f"{decimal_text(123_456, 'KWD')} KWD",
        "amount_shown": "KWD\u00a0123.456",
        "subject": "Blue kettle",
        "paid_at": None,
        "going_back": None,
        "retry_after_s": 0,
        "definite": False,
        "live": None,
    }
    assert response.headers["cache-control"] == "no-store"


async def test_the_amount_is_in_the_language_of_the_address_or_of_the_browser(client: Client, buyer: Client) -> None:
    address, chinese = f"/o/{token_of(await place(client, currency='USD'))}/status", "zh-CN,en;q=0.8"
    shown = [
        (await buyer.get(address)).json["amount_shown"],
        (await buyer.get(address, accept_language=chinese)).json["amount_shown"],
        (await buyer.get(f"{address}?lang=en", accept_language=chinese)).json["amount_shown"],
    ]
    assert shown == ["$88.88", "US$88.88", "$88.88"]


async def test_every_wrong_token_has_the_same_answer(client: Client, buyer: Client, resources: Resources) -> None:
    """Malformed, unknown and expired get the same response at each address."""
    order = await place(client)
    await expire_tokens(resources)
    wrong = ("x", "%00", "a%2Fb", "z" * 22, "z" * 200, token_of(order), token_of(order)[:-1], order["order_no"])
    for suffix, method in (
        ("", "GET"),
        ("/return", "GET"),
        ("/status", "GET"),
        ("/events", "GET"),
        ("/refresh", "POST"),
    ):
        responses = [await buyer.call(method, f"/o/{token}{suffix}") for token in wrong]
        assert {response.status for response in responses} == {404}, suffix
        bodies = {re.sub(rb"request:[0-9a-f]{16}", b"", response.body) for response in responses}
        assert len(bodies) == 1, suffix


async def test_a_token_opens_its_own_order_only(client: Client, buyer: Client) -> None:
    mine, other = await place(client, subject="mine"), await place(client, subject="somebody else's")
    assert (await buyer.get(f"/o/{token_of(mine)}/status")).json["subject"] == "mine"
    assert "somebody" not in (await buyer.get(f"/o/{token_of(mine)}")).body.decode()
    assert token_of(mine) != token_of(other)
    assert len(token_of(mine)) >= 22, "128 bits"


# -- refresh -----------------------------------------------------------------------------------------------------------


async def test_lost_callback_is_recovered_by_the_buyers_button(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    order = await place(client, account=account)
    await channel.pay(order["payments"][0]["out_trade_no"])
    response = await buyer.post(f"/o/{token_of(order)}/refresh", accept="application/json")
    assert (response.json["status"], response.json["definite"]) == ("paid", True)
    assert response.json["paid_at"] is not None


async def test_a_second_refresh_within_three_seconds_is_429_and_the_form_still_finds_its_page(
    client: Client, buyer: Client
) -> None:
    address = f"/o/{token_of(await place(client))}"
    first = await buyer.post(f"{address}/refresh", accept="application/json")
    second = await buyer.post(f"{address}/refresh", accept="application/json")
    form = await buyer.call("POST", f"{address}/refresh?lang=zh", body=b"")
    assert (first.status, first.json["retry_after_s"]) == (200, 3)
    assert (second.status, second.problem, second.headers["retry-after"]) == (429, "too_many_requests", "3")
    assert (form.status, form.headers["location"]) == (303, f"{address}?lang=zh")


@pytest.mark.usefixtures("long_cooldown")
async def test_a_thousand_refreshes_at_once_are_one_query(
    client: Client, buyer: Client, account: str, channel: Channel
) -> None:
    order = await place(client, account=account)
    before = await channel.queries()
    target, statuses = f"/o/{token_of(order)}/refresh", set[int]()
    for _ in range(5):
        calls = (buyer.post(target, accept="application/json") for _ in range(200))
        statuses |= {response.status for response in await asyncio.gather(*calls)}
    assert statuses == {200, 429}
    assert await channel.queries() - before == 1


async def test_a_refresh_from_another_site_is_refused(client: Client, buyer: Client) -> None:
    address = f"/o/{token_of(await place(client))}/refresh"
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://pay.test"},
        {"origin": "https://evil.test"},
        {"origin": "https://pay.test.evil.test"},
        {"origin": "file://"},
        {"origin": "http://["},
    ):
        assert (await buyer.call("POST", address, headers=headers)).status == 400, headers
    for number, headers in enumerate(
        ({}, {"sec-fetch-site": "same-origin", "origin": "null"}, {"origin": "http://pay.test"}, {"origin": "null"})
    ):
        assert (await buyer.call("POST", address, headers=headers)).status == 303, (number, headers)


async def test_coming_back_from_the_channel_never_ends_on_an_error(
    client: Client, buyer: Client, account: str, channel: Channel, resources: Resources
) -> None:
    """The channel hangs for a minute, and the buyer is on the page long before."""
    order = await place(client, account=account)
    await channel.faults(timed_out=1.0)
    resources.accounts._transport.timeout_s = 60.0
    async with asyncio.timeout(60):
        response = await buyer.get(f"/o/{token_of(order)}/return?status=failed&trade_status=TRADE_CLOSED")
    assert (response.status, response.headers["location"]) == (303, f"/o/{token_of(order)}")
    assert heading(await buyer.get(f"/o/{token_of(order)}")) == "Payment processing"


# -- without the database, without the network -------------------------------------------------------------------------


async def test_the_page_says_processing_when_the_accounts_cannot_be_read(
    client: Client, buyer: Client, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has just started knows none yet."""
    order = await place(client, account=account)

    async def fail(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr("runtime.accounts.Accounts.get", fail)
    page = await buyer.get(f"/o/{token_of(order)}")
    assert (page.status, heading(page)) == (503, "Payment processing")
    form = {"content-type": "application/x-www-form-urlencoded"}
    click = await buyer.call("POST", f"/o/{token_of(order)}/pay", body=b"account=main&method=page", headers=form)
    assert (click.status, click.headers["location"]) == (303, f"/o/{token_of(order)}?error=unclear")


async def test_the_page_says_processing_when_the_order_cannot_be_read(
    client: Client, buyer: Client, resources: Resources
) -> None:
    order = await place(client)
    await resources.db.close()
    page = await buyer.get(f"/o/{token_of(order)}")
    assert (page.status, heading(page), page.headers["retry-after"]) == (503, "Payment processing", "5")
    assert f'data-token="{token_of(order)}"' in page.body.decode(), "so that its script goes on asking"
    assert not WORDS_THAT_FRIGHTEN.search(page.body.decode())
    status = await buyer.get(f"/o/{token_of(order)}/status")
    assert (status.status, status.problem) == (503, "unavailable")


@pytest.mark.parametrize("suffix", ["", "/return"])
async def test_a_buyer_gets_a_page_also_from_a_process_with_too_much_to_do(
    client: Client, buyer: Client, suffix: str
) -> None:
    address = f"/o/{token_of(await place(client))}"
    client.app._lag.seconds = 60.0
    page = await buyer.get(f"{address}{suffix}", accept="text/html,*/*;q=0.8", accept_language="zh-CN")
    assert (page.status, heading(page), page.headers["retry-after"]) == (503, TEXTS["zh"]["processing"], "5")
    assert page.headers["content-security-policy"] == CSP
    assert (await buyer.get(f"{address}/status", accept="application/json")).problem == "unavailable"
    assert (await client.get("/v1/orders", accept="text/html")).problem == "unavailable"


async def test_a_plain_form_never_ends_on_an_error(client: Client, buyer: Client, resources: Resources) -> None:
    """A browser without the script would show the problem's JSON to the buyer."""
    address = f"/o/{token_of(await place(client))}"
    await resources.db.close()
    form = await buyer.call("POST", f"{address}/refresh?lang=zh", body=b"")
    assert (form.status, form.headers["location"]) == (303, f"{address}?lang=zh")
    assert (await buyer.post(f"{address}/refresh", accept="application/json")).problem == "unavailable"
    missing = await buyer.call("POST", "/o/x/refresh", body=b"")
    assert (missing.status, heading(missing)) == (404, "Nothing to see here")


async def test_the_shell_knows_no_token_and_says_processing(buyer: Client) -> None:
    shell = await buyer.get("/o/shell")
    assert heading(shell) == "Payment processing"
    assert 'data-token=""' in shell.body.decode()


async def test_the_service_worker_keeps_the_shell_and_the_files_and_no_answer(buyer: Client) -> None:
    worker = await buyer.get("/o/sw.js")
    script = worker.body.decode()
    assert worker.headers["cache-control"] == "no-cache"
    assert worker.headers["content-type"].startswith("text/javascript")
    assert "__ASSETS__" not in script
    assert "__VERSION__" not in script
    assert assets.url("order.js") in script
    assert "/status" not in script


async def test_files_are_named_by_their_content_and_kept_for_ever(buyer: Client) -> None:
    for name, media_type in (("order.js", "text/javascript"), ("order.css", "text/css"), ("icon.svg", "image/svg+xml")):
        response = await buyer.get(assets.url(name))
        assert response.headers["content-type"].startswith(media_type)
        assert "immutable" in response.headers["cache-control"]
    assert (await buyer.get("/o/static/order.000000000000.js")).headers["cache-control"] == "no-store"
    for name in ("order.js", "..%2Fasgi.py", "nothing.000000000000.js", "sw.000000000000.js"):
        assert (await buyer.get(f"/o/static/{name}")).status == 404


# -- guesses -----------------------------------------------------------------------------------------------------------


async def test_guesses_of_tokens_are_limited_by_address(client: Client, buyer: Client) -> None:
    """Also those that are made at once: each is counted before it is looked up."""
    client.app.context.guesses._clock = lambda: 1000.0
    path = f"/o/{token_of(await place(client))}"
    stranger = Client(client.app, address="198.51.100.66")
    made: list[Response] = []
    for left in (300, 100):
        made = await asyncio.gather(*(stranger.get(f"/o/{number:022}/status") for number in range(200)))
        assert sum(response.status == 404 for response in made) == min(200, left)
    refused = max(made, key=lambda response: response.status)
    assert (refused.problem, refused.headers["retry-after"]) == ("too_many_requests", "1")
    for target in (path, f"/o/{'t' * 22}"):
        assert (await stranger.get(f"{target}/events")).status == 429
        click = await stranger.call("POST", f"{target}/pay", body=b"account=main&method=page")
        assert (click.status, click.headers["location"]) == (303, f"{target}?error=limit"), "not: no such order"
        page = await stranger.get(target)
        assert (page.status, heading(page), page.headers["retry-after"]) == (429, "Payment processing", "5")
    assert (await buyer.get(path)).status == 200, "another address is not concerned"


async def test_a_guess_is_never_part_of_an_address_as_it_is(client: Client) -> None:
    """A return beyond the limit is a page that comes again, whatever its token is."""
    client.app.context.guesses._clock = lambda: 1000.0
    stranger = Client(client.app, address="198.51.100.66")
    for _ in range(300):
        await stranger.get("/o/x/status")
    for token in ("%E8%8C%B6", "%2F..%2F..%2Fevil.test", "x%3Flang%3Dzh%23", "%5Cevil.test"):
        response = await stranger.get(f"/o/{token}/return")
        assert (response.status, f'action="/o/{token}/refresh"' in response.body.decode()) == (429, True)
        assert b'http-equiv="refresh"' in response.body


async def test_the_page_of_an_order_is_opened_by_hundreds_at_once(client: Client, buyer: Client) -> None:
    path = f"/o/{token_of(await place(client))}/status"
    for _ in range(4):
        responses = await asyncio.gather(*(buyer.get(path) for _ in range(100)))
        assert {response.status for response in responses} == {200}
