"""An account as its operator writes it down: a TOML file, read with errors that say what each key should look like.

What is stored is `core.account.AccountConfig`; the name comes from the command line, so that one file can serve twice.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from channels.adapters import ADAPTERS, open_channel
from channels.hosts import WITHOUT_HOST, host_problem, is_loopback
from channels.transport import Transport
from cli.accounts.credential_files import READABLE_BY_OTHERS, with_files
from cli.output import Wrong, warn
from core.account import AccountConfig
from core.errors import ConfigurationError

FILE_BYTES_MAX = 256 * 1024
"""Far over any account: certificates in PEM take a few kilobytes each."""

SHAPES = {
    "channel": f"the channel in quotes: {', '.join(ADAPTERS)}",
    "base_url": 'the address of the channel\'s API in quotes, "https://api.channel.example"',
    "credentials": "a table, [credentials] and below it what the channel gave you",
    "rate_per_s": "how often the channel may be called in any second, a whole number from 1 to 10000",
    "trust_callback": 'true, false or "when_unanswered"',
    "late_policy": '"accept", "flag" or "refund"',
    "double_policy": '"flag" or "refund"',
    "early_queries_s": "a list of seconds, each over 0 and under 60, such as [5, 20]",
    "exclusive": "true or false",
    "custom_host": "true or false: true for a base_url that is meant to be none of the channel's own hosts",
    "live": "true or false",
}
REQUIRED = ("channel", "credentials")


class Problem(NamedTuple):
    """A fault in one key of the file; `key` is empty for the file as a whole. It never holds a value."""

    key: str
    says: str


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A file as far as it could be read: the account, unless there are problems, and all problems."""

    source: str
    table: dict[str, Any]
    problems: list[Problem]
    account: AccountConfig | None = None

    def complete(self) -> AccountConfig:
        """The account.

        Raises:
            ConfigurationError: names the file and the first thing that is wrong; `nodrop accounts check` names all.
        """
        if self.account is None:
            first = self.problems[0]
            raise ConfigurationError(f"{self.source}: {first.key} {first.says}".replace(":  ", ": "))
        return self.account


def read_account(name: str, source: str, content: bytes) -> AccountConfig:
    """The account in `content`, which `source` names in errors.

    Raises:
        ConfigurationError: names the file, the key and what it should look like; never a value.
    """
    return draft_account(name, source, content).complete()


def draft_account(name: str, source: str, content: bytes, defaults: Mapping[str, Any] = MappingProxyType({})) -> Draft:
    """As `read_account`, with all faults. `defaults` are for keys that are not in the file."""
    try:
        in_file = _decode(content)
    except _NotRead as error:
        return Draft(source=source, table={}, problems=[Problem("", str(error))])
    return _draft(name, source, {**defaults, **in_file}, _folder_of(source))


def draft_of_table(name: str, source: str, table: dict[str, Any]) -> Draft:
    """An account that is one of several tables in a file."""
    return _draft(name, source, table, _folder_of(source))


def decode_tables(source: str, content: bytes) -> dict[str, Any]:
    """The tables and values of a file.

    Raises:
        ConfigurationError: it is too large, or not TOML.
    """
    try:
        return _decode(content)
    except _NotRead as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _draft(name: str, source: str, table: dict[str, Any], folder: Path) -> Draft:
    problems = [Problem(key, _unknown(key)) for key in table if key not in SHAPES]
    problems += [Problem(key, f"is missing; it is {SHAPES[key]}") for key in REQUIRED if key not in table]
    if isinstance(table.get("credentials"), dict):
        credentials, unread = with_files(table["credentials"], folder)
        table = {**table, "credentials": credentials}
        problems += [Problem(f"credentials.{key}", f"is {says}") for key, says in unread]
    for field in msgspec.structs.fields(AccountConfig):
        if field.name in table and field.name in SHAPES:
            try:
                msgspec.convert(table[field.name], field.type)
            except msgspec.ValidationError:
                problems.append(Problem(field.name, f"is not {SHAPES[field.name]}"))
    if problems:
        return Draft(source=source, table=table, problems=problems)
    account = msgspec.convert({**table, "name": name}, AccountConfig)
    problems = _about_base_url(account) or _about_world(account)
    return Draft(source=source, table=table, problems=problems, account=None if problems else account)


class _NotRead(Exception):
    """Not an account file at all; the message says why."""


def _decode(content: bytes) -> dict[str, Any]:
    if len(content) > FILE_BYTES_MAX:
        raise _NotRead(f"larger than {FILE_BYTES_MAX // 1024} KiB, which no account is")
    try:
        table: dict[str, Any] = msgspec.toml.decode(content, type=dict[str, Any])
    except UnicodeDecodeError:
        raise _NotRead("not UTF-8, so not TOML") from None
    except msgspec.DecodeError as error:
        raise _NotRead(f"not TOML: {error}") from None
    return table


def _folder_of(source: str) -> Path:
    return Path() if source == "-" else Path(source).parent


def _unknown(key: str) -> str:
    if key == "name":
        return "belongs on the command line: nodrop accounts add NAME --from FILE"
    close = get_close_matches(key, SHAPES, n=1)
    return "is no key of an account" + (f"; did you mean {close[0]}?" if close else f": {', '.join(SHAPES)}")


def _about_base_url(account: AccountConfig) -> list[Problem]:
    """Empty, it is the channel's own host; what an adapter demands of it besides is the adapter's to say."""
    if not account.base_url and account.channel not in WITHOUT_HOST:
        return []
    try:
        parts = urlsplit(account.base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not account.base_url:
        return [Problem("base_url", f"is missing; it is {SHAPES['base_url']}")]
    if not is_address:
        return [Problem("base_url", f"is not {SHAPES['base_url']}")]
    if account.live and not account.base_url.startswith("https:"):
        return [Problem("base_url", "must begin with https:// for a live account, which moves money")]
    return []


def _about_world(account: AccountConfig) -> list[Problem]:
    problem = host_problem(account) if account.channel in ADAPTERS else None
    return [] if problem is None else [Problem(*problem)]


def content_of(source: str) -> bytes:
    """The bytes of the file, one more than is taken at most.

    Raises:
        Wrong: it cannot be read.
    """
    if source == "-":
        return sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        mode = path.stat().st_mode
    except OSError as error:
        raise Wrong(f"{source}: {error.strerror or 'cannot be read'}") from None
    if stat.S_ISREG(mode) and mode & READABLE_BY_OTHERS:
        warn(f"{source} can be read by others on this machine: chmod 600 {source}, and delete it afterwards")
    return content


async def open_once(account: AccountConfig) -> None:
    """Raises ConfigurationError for what its adapter cannot work with."""
    async with Transport(timeout_s=1.0) as transport:
        open_channel(account, transport)


def is_plain_elsewhere(account: AccountConfig) -> bool:
    """True if credentials would leave this machine in the clear."""
    return account.base_url.startswith("http:") and not is_loopback(account.base_url)
