"""The list of channels: each channel's adapter and the description of its accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from channels import alipay, paypal, sandbox, stripe, wechatpay
from channels.base import Channel
from channels.description import AccountDescription
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import ConfigurationError


class Adapter(NamedTuple):
    """An adapter is opened for an account; `description` is of the credentials that it takes."""

    open: Callable[[AccountConfig, Transport], Channel]
    description: AccountDescription


ADAPTERS = {
    "sandbox": Adapter(sandbox.Sandbox, sandbox.DESCRIPTION),
    "stripe": Adapter(stripe.Stripe, stripe.DESCRIPTION),
    "alipay": Adapter(alipay.Alipay, alipay.DESCRIPTION),
    "wechatpay": Adapter(wechatpay.WechatPay, wechatpay.DESCRIPTION),
    "paypal": Adapter(paypal.Paypal, paypal.DESCRIPTION),
}

CALLBACK_HEADERS = frozenset(
    name
    for channel in (sandbox.Sandbox, stripe.Stripe, alipay.Alipay, wechatpay.WechatPay, paypal.Paypal)
    for name in channel.callback_headers
)
"""Lower-case names of the headers that the verification of any channel reads."""


def open_channel(account: AccountConfig, transport: Transport) -> Channel:
    """The adapter of an account, ready to be called.

    Raises:
        ConfigurationError: there is no such channel, or the account's credentials are not of its form.
    """
    adapter = ADAPTERS.get(account.channel)
    if adapter is None:
        raise ConfigurationError(f"account {account.name}: channel {account.channel} is none of {', '.join(ADAPTERS)}")
    return adapter.open(account, transport)


def world_of(account: AccountConfig) -> str:
    """The world in which the account's transactions are unique, whatever the account is called: `stripe live`,
    `sandbox test 127.0.0.1:9100`. The host is named where it is not one of the channel's own.
    """
    host = urlsplit(account.base_url).netloc.rpartition("@")[2].lower().removesuffix(":443").rstrip(".")
    own_hosts = ADAPTERS[account.channel].description.hosts
    words = (account.channel, "live" if account.live else "test", "" if host in own_hosts else host)
    return " ".join(filter(None, words))


def is_same_merchant(one: AccountConfig, other: AccountConfig) -> bool:
    """Whether both accounts are of one merchant, in one world."""
    if world_of(one) != world_of(other):
        return False
    keys = ADAPTERS[one.channel].description.merchant
    return any(one.credentials.get(key) and one.credentials[key] == other.credentials.get(key) for key in keys)
