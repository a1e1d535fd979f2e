"""Ways to pay by device, and what an order's page may still start."""

from datetime import timedelta

import pytest

from channels.adapters import ADAPTERS
from core import paying
from core.checkout import Payer
from core.order import Checkout, Origin, Payment, PaymentKey, PaymentStatus
from core.paying import Device, Way, WayKind, device_of, meant_for, ways
from tests.core.states import ALIPAY, EXPIRES_AT, NOW, WECHAT, a_payment, a_state, an_order, closed_order, paid_payment

ALL = [("wx", "wechatpay"), ("ali", "alipay"), ("card", "stripe"), ("pp", "paypal"), ("sand", "sandbox")]
LINK = Checkout(kind="redirect", value="https://pay.test/1")


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        ("", Device.DESK),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605", Device.DESK),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148", Device.PHONE),
        ("Mozilla/5.0 (Linux; Android 14) Chrome/120 Mobile", Device.PHONE),
        ("Mozilla/5.0 (Linux; Android 14) Mobile MicroMessenger/8.0.50", Device.WECHAT),
        ("Mozilla/5.0 (Windows NT 10.0) MicroMessenger/7.0 WindowsWechat", Device.WECHAT),
    ],
)
def test_the_device_is_guessed(user_agent: str, device: Device) -> None:
    assert device_of(user_agent) is device


def named(found: tuple[Way, ...], *, fits: bool = True) -> list[str]:
    return [f"{way.account} {way.method or way.kind}" for way in found if way.fits is fits]


@pytest.mark.parametrize(
    ("device", "has_openid", "first"),
    [
        (Device.DESK, True, ["wx native", "ali precreate", "ali page"]),
        (Device.PHONE, True, ["wx h5", "ali wap"]),
        (Device.WECHAT, True, ["wx jsapi", "ali elsewhere"]),
        (Device.WECHAT, False, ["wx elsewhere", "ali elsewhere"]),
    ],
)
def test_ways_suit_the_device_and_none_is_out_of_reach(device: Device, has_openid: bool, first: list[str]) -> None:
    found = ways(ALL, device, has_openid=has_openid)
    assert named(found) == [*first, "card checkout", "pp checkout", "sand page"]
    methods = {way.method for way in found if way.channel in ("wechatpay", "alipay") and way.method}
    assert methods == {"native", "h5", "precreate", "page", "wap"} | ({"jsapi"} if has_openid else set())
    assert named(found, fits=False) == named(found[len(named(found)) :], fits=False)


def test_a_way_is_meant_for_the_device_that_it_fits() -> None:
    for device in Device:
        for way in ways([("w", "wechatpay"), ("a", "alipay")], device, has_openid=True):
            assert way.kind is WayKind.ELSEWHERE or way.fits == (meant_for(way) is device)


def test_a_channel_without_a_page_has_no_way() -> None:
    assert ways([("later", "later-channel")], Device.DESK, has_openid=False) == ()


@pytest.mark.parametrize("channel", sorted(ADAPTERS))
def test_every_way_is_a_method_of_its_channel(channel: str) -> None:
    methods = [way.method for way in ways([("a", channel)], Device.DESK, has_openid=True)]
    adapter = {"alipay": ("precreate", "page", "wap"), "wechatpay": ("native", "h5", "jsapi"), "sandbox": ("page",)}
    assert set(methods) <= set(adapter.get(channel, ("checkout",)))
    assert paying.method_of(a_payment(method=""), channel) == ADAPTERS[channel].open.methods[0]  # type: ignore[attr-defined]


def test_a_payment_of_no_known_channel_has_no_method() -> None:
    assert paying.method_of(a_payment(method=""), "later-channel") == ""
    assert paying.method_of(a_payment(method="app"), "later-channel") == "app"


@pytest.mark.parametrize(
    ("row", "requested"),
    [
        (a_payment(WECHAT, method=""), ""),
        (a_payment(WECHAT, method="native"), "native"),
        (a_payment(WECHAT, method="h5"), "native"),
        (a_payment(WECHAT, method="", given_up_at=NOW), "native"),
        (a_payment(WECHAT, method="", origin=Origin.WATCHED), "native"),
        (a_payment(ALIPAY, method=""), "native"),
        (a_payment(WECHAT, method="", status=PaymentStatus.CLOSED), "native"),
    ],
)
def test_a_payment_that_names_no_method_is_used_again(row: Payment, requested: str) -> None:
    way = Way(account="wechat", channel="wechatpay", method="native", kind=WayKind.QR)
    assert paying.requested_method(a_state(an_order(), row), way) == requested


def test_the_choice_is_the_merchants_or_the_accounts_of_our_payments() -> None:
    rows = (a_payment(ALIPAY), a_payment(WECHAT, origin=Origin.WATCHED), a_payment(PaymentKey("alipay", "n-2")))
    assert paying.choice(a_state(an_order(), *rows)) == ("alipay",)
    assert paying.choice(a_state(an_order(accounts=("b", "a")), *rows)) == ("b", "a")


@pytest.mark.parametrize(
    ("payment", "can_start"),
    [
        (a_payment(), True),
        (paid_payment(), False),
        (paid_payment(refunded_amount=8888), True),
        (paid_payment(refunded_amount=None), False),
    ],
)
def test_nothing_is_started_while_money_is_there(payment: Payment, can_start: bool) -> None:
    assert paying.can_start(a_state(an_order(), payment)) is can_start


def test_nothing_is_started_when_the_order_is_over() -> None:
    assert not paying.can_start(a_state(closed_order()))
    assert not paying.can_start(a_state(an_order(), now=EXPIRES_AT))


def test_the_openid_is_the_orders_or_a_payments() -> None:
    with_ip, with_openid = Payer(client_ip="192.0.2.1"), Payer(openid="o-1")
    assert paying.openid_of(a_state(an_order())) is None
    assert paying.openid_of(a_state(an_order(payer=with_openid), a_payment(payer=with_ip))) == "o-1"
    assert (
        paying.openid_of(a_state(an_order(), a_payment(payer=with_ip), a_payment(WECHAT, payer=with_openid))) == "o-1"
    )


@pytest.mark.parametrize(
    ("changes", "is_payable", "is_another"),
    [
        ({"checkout": LINK}, True, True),
        ({"checkout": LINK, "checkout_ends_at": NOW + timedelta(seconds=1)}, True, True),
        ({"checkout": LINK, "checkout_ends_at": NOW}, False, True),
        ({"checkout": LINK, "payable_until": NOW}, False, False),
        ({"checkout": LINK, "given_up_at": NOW}, False, False),
        ({"checkout": LINK, "refused_at": NOW}, False, True),
        ({"checkout": LINK, "status": PaymentStatus.CLOSED}, False, False),
        ({}, False, False),
        ({"origin": Origin.WATCHED}, False, True),
    ],
)
def test_another_payable_payment_is_one_that_the_buyer_may_have_in_hand(
    changes: dict[str, object], is_payable: bool, is_another: bool
) -> None:
    row, current = a_payment(ALIPAY, **changes), a_payment(WECHAT, checkout=LINK)
    state = a_state(an_order(), row, current)
    assert (row in paying.payable_checkouts(state)) is is_payable
    assert paying.is_another_payable(state, current) is is_another
    assert paying.payable_checkouts(state)[-1] == current
