"""Ways to pay an order from its page: which methods of which accounts suit the buyer's device.

A guess of the device only sorts them: every way that works on some device stays in the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from core.order import OrderState, Origin, Payment, PaymentStatus

ACCOUNTS_MAX = 10
"""Accounts that a buyer may choose from."""

PAYMENTS_MAX = 30
"""Payments of an order with which its page starts no other one: each is queried before the next."""


class Device(StrEnum):
    """desk: a screen that another device can scan. phone. wechat: the browser inside WeChat, which opens neither Alipay
    nor WeChat Pay's own links.
    """

    DESK = "desk"
    PHONE = "phone"
    WECHAT = "wechat"


class WayKind(StrEnum):
    """redirect: a link. qr: a code to scan. jsapi: a call of WeChat's own browser. elsewhere: open in your browser."""

    REDIRECT = "redirect"
    QR = "qr"
    JSAPI = "jsapi"
    ELSEWHERE = "elsewhere"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way to pay. `elsewhere` has no method. `fits` false: it is for another device than the guessed one."""

    account: str
    channel: str
    method: str
    kind: WayKind
    fits: bool = True


class _Method(NamedTuple):
    kind: WayKind
    devices: tuple[Device, ...]
    needs_openid: bool = False


_ANY = (Device.DESK, Device.PHONE, Device.WECHAT)

_METHODS: Mapping[str, Mapping[str, _Method]] = MappingProxyType(
    {
        "sandbox": {"page": _Method(WayKind.REDIRECT, _ANY)},
        "stripe": {"checkout": _Method(WayKind.REDIRECT, _ANY)},
        "paypal": {"checkout": _Method(WayKind.REDIRECT, _ANY)},
        "alipay": {
            "precreate": _Method(WayKind.QR, (Device.DESK,)),
            "page": _Method(WayKind.REDIRECT, (Device.DESK,)),
            "wap": _Method(WayKind.REDIRECT, (Device.PHONE,)),
        },
        "wechatpay": {
            "native": _Method(WayKind.QR, (Device.DESK,)),
            "h5": _Method(WayKind.REDIRECT, (Device.PHONE,)),
            "jsapi": _Method(WayKind.JSAPI, (Device.WECHAT,), needs_openid=True),
        },
    }
)
"""Methods by channel. Stripe's PaymentIntents are for a merchant's own page, and so not here."""

_PHONE = re.compile(r"Mobi|Android|iPhone|iPad|iPod|HarmonyOS", re.IGNORECASE)


def device_of(user_agent: str) -> Device:
    """The device that a User-Agent speaks of. WeChat on a desk computer calls itself `WindowsWechat` or `MacWechat`."""
    if "MicroMessenger" in user_agent:
        return Device.WECHAT
    return Device.PHONE if _PHONE.search(user_agent) else Device.DESK


def ways(accounts: Iterable[tuple[str, str]], device: Device, *, has_openid: bool) -> tuple[Way, ...]:
    """Ways at these accounts (name, channel), those that fit the device first; the merchant's order otherwise.

    An account without one that fits begins with `elsewhere`.
    """
    every = [way for account, channel in accounts for way in _ways_of(account, channel, device, has_openid=has_openid)]
    return tuple(sorted(every, key=lambda way: not way.fits))


def _ways_of(account: str, channel: str, device: Device, *, has_openid: bool) -> Iterator[Way]:
    methods = {
        name: method for name, method in _METHODS.get(channel, {}).items() if has_openid or not method.needs_openid
    }
    if methods and not any(device in method.devices for method in methods.values()):
        yield Way(account=account, channel=channel, method="", kind=WayKind.ELSEWHERE)
    for name, (kind, devices, _) in methods.items():
        yield Way(account=account, channel=channel, method=name, kind=kind, fits=device in devices)


def meant_for(way: Way) -> Device:
    """The device that the way's method is for; the first, if there are several."""
    return _METHODS[way.channel][way.method].devices[0]


def choice(state: OrderState) -> tuple[str, ...]:
    """Names of the accounts that the buyer may pay at: the merchant's choice, else those of our own payments."""
    if state.order.accounts is not None:
        return state.order.accounts
    return tuple(dict.fromkeys(row.channel_account for row in state.payments if row.origin is Origin.OURS))


def method_of(payment: Payment, channel: str) -> str:
    """The method of a payment; one that names none has its channel's first."""
    return payment.method or next(iter(_METHODS.get(channel, {})), "")


def requested_method(state: OrderState, way: Way) -> str:
    """The method to request, so that an open payment that names none is used again and not doubled."""
    rows = [row for row in state.open_payments() if row.channel_account == way.account and row.given_up_at is None]
    names = [row.method for row in rows if method_of(row, way.channel) == way.method and row.origin is Origin.OURS]
    return names[-1] if names else way.method


def can_start(state: OrderState) -> bool:
    """Whether the buyer may still start a payment."""
    return not state.order.is_resolved and state.now < state.order.expires_at and not _has_money(state)


def is_waiting(state: OrderState) -> bool:
    """Whether the page may say that it waits for the buyer to pay: nobody was sent to a channel yet, or the buyer is
    back, and the channels have said *unpaid* since. Then the page shows no link and no code: the next click does.
    """
    order = state.order
    return can_start(state) and (order.handed_off_at is None or order.is_known_unpaid)


def openid_of(state: OrderState) -> str | None:
    """The buyer's id at the merchant's application, from the order or from a payment that needs it."""
    payers = (state.order.payer, *(row.payer for row in state.payments))
    return next((payer.openid for payer in payers if payer is not None and payer.openid is not None), None)


def payable_checkouts(state: OrderState) -> tuple[Payment, ...]:
    """Payments of ours whose checkout works now, the newest last."""
    return tuple(row for row in _payable(state) if _has_working_checkout(row, state.now))


def is_another_payable(state: OrderState, payment: Payment) -> bool:
    """Whether the order could be paid by another payment too, whose link, code or page is in the buyer's hands."""
    return any(row.key != payment.key for row in _payable(state))


def _payable(state: OrderState) -> tuple[Payment, ...]:
    """Open payments that the buyer could have been sent to, and that may still take money."""
    return tuple(
        row
        for row in state.open_payments()
        if row.given_up_at is None
        and state.now < row.payable_until
        and (row.checkout is not None or row.origin is Origin.WATCHED)
    )


def _has_working_checkout(row: Payment, now: datetime) -> bool:
    ends_at = row.checkout_ends_at or row.payable_until
    return row.origin is Origin.OURS and row.refused_at is None and now < ends_at


def _has_money(state: OrderState) -> bool:
    """Whether money has come that did not pay the order, and has not gone back."""
    return any(row.status is PaymentStatus.PAID and row.remaining_amount != 0 for row in state.payments)
