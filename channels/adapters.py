"""Which adapter speaks for which channel: the one list of them."""

from __future__ import annotations

from collections.abc import Callable

from channels.alipay.adapter import Alipay
from channels.base import Channel
from channels.paypal.adapter import Paypal
from channels.sandbox.adapter import Sandbox
from channels.stripe.adapter import Stripe
from channels.transport import Transport
from channels.wechatpay.adapter import WechatPay
from core.account import AccountConfig
from core.errors import ConfigurationError

ADAPTERS: dict[str, Callable[[AccountConfig, Transport], Channel]] = {
    "sandbox": Sandbox,
    "stripe": Stripe,
    "alipay": Alipay,
    "wechatpay": WechatPay,
    "paypal": Paypal,
}


def open_channel(account: AccountConfig, transport: Transport) -> Channel:
    """The adapter of an account, ready to be called.

    Raises:
        ConfigurationError: there is no such channel, or the account's credentials are not of its form.
    """
    adapter = ADAPTERS.get(account.channel)
    if adapter is None:
        raise ConfigurationError(f"account {account.name}: channel {account.channel} is none of {', '.join(ADAPTERS)}")
    return adapter(account, transport)
