"""The page on which the buyer pays: its form, its safety, and what each button does."""

import base64
import re
from hashlib import sha256

import httpx
import pytest

from simulator.kernel.pay_page import Action, shown_amount
from simulator.shoppers.browser import Browser
from tests.simulator.conftest import Channel, Receiver, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def pay_url(channel: Channel, number: str = "number-1", **terms: object) -> str:
    response = await channel.api.create(number, **terms)
    url: str = response.json()["pay_url"]
    return url


async def test_page_shows_subject_amount_and_buttons(channel: Channel) -> None:
    page = await channel.http.get(await pay_url(channel))
    assert page.status_code == 200
    assert "Tea, 250 g" in page.text
    assert "88.88 CNY" in page.text
    assert re.findall(r'value="(\w+)"', page.text) == [action.value for action in Action]


async def test_page_tells_its_channel_and_until_when_in_utc(channel: Channel) -> None:
    """Whatever zone the channel counts its hours in."""
    page = await channel.http.get(await pay_url(channel, expires_at="2038-01-19T11:14:07+08:00"))
    assert "Simulated channel: sandbox." in page.text
    assert "Payable until 2038-01-19 03:14:07 UTC" in page.text


async def test_paying_in_the_page_pays_and_shows_the_way_back(channel: Channel, receiver: Receiver) -> None:
    url = await pay_url(channel, callback_url=receiver.url)
    async with Browser() as browser:
        page = await browser.press(await browser.open(url), Action.PAY)
    assert (page.http_status, page.url, page.state) == (200, url, "paid")
    assert page.links["return"] == "https://shop.example/done?a=1&b=2"
    assert (await channel.payment("number-1")).status == "paid"
    await until(lambda: receiver.requests)


async def test_form_answers_with_a_redirect_so_that_a_reload_never_pays(channel: Channel) -> None:
    url = await pay_url(channel)
    response = await channel.http.post(url, data={"action": "pay"})
    assert response.status_code == 303
    assert url.endswith(response.headers["location"])


async def test_button_loses_the_callback(channel: Channel, receiver: Receiver) -> None:
    url = await pay_url(channel, callback_url=receiver.url)
    await channel.http.post(url, data={"action": "pay_lose_callback"})
    payment = await channel.payment("number-1")
    assert (payment.status, payment.callbacks.lost, payment.callbacks.sent) == ("paid", 1, 0)


async def test_cancel_pays_nothing(channel: Channel) -> None:
    url = await pay_url(channel)
    response = await channel.http.post(url, data={"action": "cancel"})
    assert 'href="https://shop.example/done?a=1&amp;b=2"' in response.text
    assert (await channel.payment("number-1")).status == "unpaid"


@pytest.mark.parametrize("body", [b"", b"action=steal", b"\xff\xfe", b"action"])
async def test_unknown_button_pays_nothing(channel: Channel, body: bytes) -> None:
    assert (await channel.http.post(await pay_url(channel), content=body)).status_code == 400
    assert (await channel.payment("number-1")).status == "unpaid"


async def test_closed_payment_takes_no_money(channel: Channel) -> None:
    url = await pay_url(channel)
    await channel.api.close("number-1")
    assert (await channel.http.post(url, data={"action": "pay"})).status_code == 409
    assert 'data-status="closed"' in (await channel.http.get(url)).text
    assert (await channel.payment("number-1")).status == "closed"


async def test_unknown_page_is_404(channel: Channel) -> None:
    assert (await channel.http.get(f"{channel.url}/pay/nobody")).status_code == 404
    assert (await channel.http.post(f"{channel.url}/pay/nobody", data={"action": "pay"})).status_code == 404


@pytest.mark.parametrize("profile", [{"down": True}])
async def test_page_is_down_with_the_channel(channel: Channel, profile: dict[str, bool]) -> None:
    url = await pay_url(channel)
    await channel.faults(**profile)
    assert (await channel.http.get(url)).status_code == 503
    assert (await channel.http.post(url, data={"action": "pay"})).status_code == 503
    assert (await channel.payment("number-1")).status == "unpaid"


async def test_what_the_shop_wrote_is_text_and_never_markup(channel: Channel) -> None:
    hostile = "</h1><script>alert(1)</script>\"'&"
    url = await pay_url(channel, subject=hostile, return_url="https://shop.example/?q=\"'<b>&x=1")
    await channel.pay("number-1")
    page = (await channel.http.get(url)).text
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


async def test_policy_allows_this_style_and_nothing_else(channel: Channel) -> None:
    page = await channel.http.get(await pay_url(channel))
    policy = page.headers["content-security-policy"]
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert page.headers["cache-control"] == "no-store"


async def test_page_address_does_not_show_the_number(channel: Channel, http: httpx.AsyncClient) -> None:
    first, second = await pay_url(channel, "number-1"), await pay_url(channel, "number-2")
    assert first != second
    assert "number" not in first
    assert (await http.get(f"{channel.url}/pay/number-1")).status_code == 404


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(1, "CNY", "0.01 CNY"), (100_000, "USD", "1000.00 USD"), (500, "JPY", "500 JPY"), (1500, "KWD", "1.500 KWD")],
)
async def test_amounts_are_shown_with_the_places_of_their_currency(amount: int, currency: str, shown: str) -> None:
    assert shown_amount(amount, currency) == shown
