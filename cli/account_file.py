"""An account as its operator writes it down: a TOML file, read with errors that say what each key should look like.

What is stored is `core.account.AccountConfig`; the name comes from the command line, so that one file can serve twice.
"""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import msgspec

from channels.adapters import ADAPTERS
from core.account import AccountConfig
from core.errors import ConfigurationError

FILE_BYTES_MAX = 256 * 1024
"""Far over any account: certificates in PEM take a few kilobytes each."""

SHAPES = {
    "channel": f"the channel in quotes: {', '.join(ADAPTERS)}",
    "base_url": 'the address of the channel\'s API in quotes, "https://api.channel.example"',
    "credentials": "a table, [credentials] and below it what the channel gave you",
    "rate_per_s": "how often the channel may be called in any second, a whole number from 1 to 10000",
    "trust_callback": "true or false",
    "late_policy": '"accept" or "flag"',
    "early_queries_s": "a list of seconds, each over 0 and under 60, such as [5, 20]",
    "live": "true or false",
}
REQUIRED = ("channel", "base_url", "credentials")


def read_account(name: str, source: str, content: bytes) -> AccountConfig:
    """The account in `content`, which `source` names in errors.

    Raises:
        ConfigurationError: names the file, the key and what it should look like; never a value.
    """
    if len(content) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{source}: larger than {FILE_BYTES_MAX // 1024} KiB, which no account is")
    given = _decode(source, content)
    for key in given:
        if key not in SHAPES:
            raise ConfigurationError(f"{source}: {_unknown(key)}")
    for key in REQUIRED:
        if key not in given:
            raise ConfigurationError(f"{source}: {key} is missing; it is {SHAPES[key]}")
    try:
        account = msgspec.convert({**given, "name": name}, AccountConfig)
    except msgspec.ValidationError as error:
        key = _key_of(str(error))
        raise ConfigurationError(f"{source}: {key} is not {SHAPES[key]}") from None
    _check_base_url(source, account)
    return account


def _decode(source: str, content: bytes) -> dict[str, Any]:
    try:
        given: dict[str, Any] = msgspec.toml.decode(content, type=dict[str, Any])
    except UnicodeDecodeError:
        raise ConfigurationError(f"{source}: not UTF-8, so not TOML") from None
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{source}: not TOML: {error}") from None
    return given


def _unknown(key: str) -> str:
    if key == "name":
        return "name belongs on the command line: nodrop accounts add NAME --from FILE"
    close = get_close_matches(key, SHAPES, n=1)
    return f"{key} is no key of an account" + (f"; did you mean {close[0]}?" if close else f": {', '.join(SHAPES)}")


def _key_of(message: str) -> str:
    """`Expected `int`, got `str` - at `$.rate_per_s`` → `rate_per_s`."""
    _, _, path = message.partition("`$.")
    return next(key for key in SHAPES if path.startswith(key))


def _check_base_url(source: str, account: AccountConfig) -> None:
    try:
        parts = urlsplit(account.base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError(f"{source}: base_url is not {SHAPES['base_url']}")
    if account.live and not account.base_url.startswith("https:"):
        raise ConfigurationError(f"{source}: base_url must begin with https:// for a live account, which moves money")


def is_plain_elsewhere(account: AccountConfig) -> bool:
    """Whether credentials would leave this machine in the clear."""
    parts = urlsplit(account.base_url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return False
    try:
        return not ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True
