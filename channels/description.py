"""The form in which each channel describes the credentials of its accounts, beside its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

PRIVATE = "our RSA private key in PEM, of 2048 bits at least: -----BEGIN PRIVATE KEY-----"
PUBLIC = "PEM: -----BEGIN PUBLIC KEY-----"
CERTIFICATE = "PEM: -----BEGIN CERTIFICATE-----"

Reader = Callable[[str, str], object]
"""Reads one text of a key, whose name it puts into errors; raises ConfigurationError."""


class AccountDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one channel's credentials, and its own hosts.

    `shapes` tell people what each key looks like; `readers` parse what the types leave open. `identity` names the keys
    that say whose account it is; `public` ones may be shown too. `request_keys` identify us in a call, `response_keys`
    verify responses, `callback_keys` are used for callbacks only. Several values of a key in `rotated` are valid at a
    time, so it is changed without a gap; at least one key of `one_of` is required. `unknown_reference` is a reference
    that no payment has, for a channel that is queried by its own. `hosts` are the channel's own, live and for tests.
    `merchant` are the keys that name who gets the money: two accounts with the same value of one are one merchant's.
    """

    credentials: type[msgspec.Struct]
    hosts: tuple[str, ...] = ()
    shapes: Mapping[str, str]
    identity: tuple[str, ...]
    merchant: tuple[str, ...]
    public: tuple[str, ...] = ()
    request_keys: tuple[str, ...]
    response_keys: tuple[str, ...] = ()
    callback_keys: tuple[str, ...] = ()
    rotated: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    readers: Mapping[str, Reader] = MappingProxyType({})
    unknown_reference: str | None = None
