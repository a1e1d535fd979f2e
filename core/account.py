"""Configuration of one of the merchant's accounts at a channel. Each channel has its own structure of credentials."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from core.errors import ConfigurationError
from core.lifecycle import DoublePolicy, LatePolicy

_Form = TypeVar("_Form")


class AccountConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an account, for its adapter and for the flows.

    `base_url` empty: the channel's own host, live or for tests according to `live`. `rate_per_s` is the most calls to
    the channel in any second by all processes together. `trust_callback` lets a callback's signed body count as
    evidence without a query: always, or when queries of the payment have had no answer. `early_queries_s` are the
    gaps, in seconds, of queries before the first attempt, for methods that have no callback. `late_policy` decides
    about money that comes after close, `double_policy` about the second payment of one order. `exclusive`: nobody else
    sells at this account, so money of an unknown payment is a case. `custom_host`: `base_url` is meant to be at none of
    the channel's own hosts. `live` accounts move real money. An account that is not `enabled` starts no payment; its
    existing ones are queried until they are definite.
    """

    name: str
    channel: str
    base_url: str = ""
    credentials: dict[str, Any]
    rate_per_s: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50
    trust_callback: bool | Literal["when_unanswered"] = False
    late_policy: LatePolicy = LatePolicy.ACCEPT
    double_policy: DoublePolicy = DoublePolicy.FLAG
    early_queries_s: tuple[Annotated[float, msgspec.Meta(gt=0, lt=60)], ...] = ()
    exclusive: bool = False
    custom_host: bool = False
    live: bool = False
    enabled: bool = True

    def credentials_as(self, form: type[_Form]) -> _Form:
        """Convert the credentials to the channel's structure.

        Raises:
            ConfigurationError: they are not of its form; the message names the key and never a value.
        """
        try:
            return msgspec.convert(self.credentials, form)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"account {self.name}: credentials: {error}") from None

    def __repr__(self) -> str:
        """Omit the credentials: an account must be safe to print."""
        return f"AccountConfig(name={self.name!r}, channel={self.channel!r})"
