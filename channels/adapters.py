"""Which adapter speaks for which channel: the one list of them."""

from __future__ import annotations

from channels.base import Channel
from channels.sandbox import Sandbox
from channels.transport import Transport
from core.account import AccountConfig
from core.errors import ConfigurationError

ADAPTERS = {"sandbox": Sandbox}


def open_channel(account: AccountConfig, transport: Transport) -> Channel:
    """The adapter of an account, ready to be called.

    Raises:
        ConfigurationError: there is no such channel, or the account's credentials are not of its form.
    """
    adapter = ADAPTERS.get(account.channel)
    if adapter is None:
        raise ConfigurationError(f"account {account.name}: channel {account.channel} is none of {', '.join(ADAPTERS)}")
    return adapter(account, transport)
