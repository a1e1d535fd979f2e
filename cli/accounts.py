"""`nodrop accounts`: the merchant's accounts at payment channels. What is printed never holds a credential."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.environment import settings, with_database
from cli.output import Stop, json_option, print_json, print_table, warn

if TYPE_CHECKING:
    from core.account import AccountConfig
    from storage.accounts import AccountRow
    from storage.database import Database
    from storage.sealing import Sealer

READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH

_SEALED = "SELECT name, sealed FROM accounts ORDER BY name"
# Only over the very value that was opened: an account that was replaced meanwhile is under the first key already.
_RESEAL = "UPDATE accounts SET sealed = $3, updated_at = now() WHERE name = $1 AND sealed = $2"
_OPEN_PAYMENTS = "SELECT count(*) FROM payments WHERE channel_account = $1 AND status = 'open'"


@click.group(epilog="Example: nodrop accounts add main --from main.toml")
def accounts() -> None:
    """Accounts at payment channels."""


@accounts.command(epilog="Example: nodrop accounts add main --from main.toml")
@click.argument("name")
@click.option("--from", "source", required=True, metavar="FILE", help="The account in TOML; - reads standard input.")
@click.option("--replace", is_flag=True, help="Change an account that is there already.")
@json_option
def add(name: str, source: str, replace: bool, as_json: bool) -> None:
    """Add an account.

    Its credentials are checked for their form and stored sealed under the first of NODROP_MASTER_KEYS. FILE holds
    secrets: keep it from others, and delete it afterwards. docs/channels.md shows one for each channel.
    """
    from cli.account_file import is_plain_elsewhere, read_account
    from core.order import ACCOUNT_NAME
    from core.settings import require
    from storage.sealing import Sealer

    if ACCOUNT_NAME.fullmatch(name) is None:
        shape = "a-z, 0-9 and -, beginning with a letter, 40 characters at most"
        raise click.BadParameter(shape, param_hint="NAME")
    account = read_account(name, source, _content(source))
    if is_plain_elsewhere(account):
        warn("base_url is plain http:// to another machine: whoever is in between can read and change what is said")
    asyncio.run(_check_form(account))
    given = settings()
    require(given, "database_url", "nodrop_master_keys")
    sealer = Sealer.from_setting(given.nodrop_master_keys)
    is_new = with_database(lambda db: _put(db, sealer, account, replace=replace))
    callback_url = f"{given.public_url.rstrip('/')}/callbacks/{name}"
    if as_json:
        print_json({"name": name, "channel": account.channel, "new": is_new, "callback_url": callback_url})
        return
    click.echo(f"{'added' if is_new else 'replaced'} {name} ({account.channel}); in force within ten seconds")
    click.echo(f"callbacks arrive at {callback_url}" + ("" if given.public_url else " below PUBLIC_URL"))


@accounts.command("list", epilog="Example: nodrop accounts list --json")
@json_option
def list_(as_json: bool) -> None:
    """List accounts, without their credentials."""
    from storage.accounts import list_accounts

    rows = with_database(list_accounts)
    if as_json:
        print_json(rows)
        return
    columns = ("name", "channel", "enabled", "created", "updated")
    table = [(row.name, row.channel, row.enabled, row.created_at, row.updated_at) for row in rows]
    print_table(columns, table, empty="no accounts; `nodrop accounts add` adds one")


@accounts.command(epilog="Example: nodrop accounts enable main")
@click.argument("name")
def enable(name: str) -> None:
    """Switch an account on again."""
    from storage.accounts import enable_account

    if not with_database(lambda db: enable_account(db, name, enabled=True)):
        raise _no_account(name)
    click.echo(f"enabled {name}; in force within ten seconds")


@accounts.command(epilog="Example: nodrop accounts disable main")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also while payments at it are open.")
def disable(name: str, force: bool) -> None:
    """Switch an account off.

    Nothing is asked of its channel any more and its callbacks are refused, also those about payments under way: so it
    is not done while any is open, unless forced.
    """
    open_payments = with_database(lambda db: _disable(db, name, force=force))
    if open_payments and not force:
        raise Stop(
            f"{open_payments} payments at {name} are open: whether they were paid could not be learnt any more. "
            "Wait until they are definite, or use --force"
        )
    click.echo(f"disabled {name}; in force within ten seconds")
    if open_payments:
        warn(f"{open_payments} payments at {name} are open: nothing is learnt about them until it is enabled again")


@accounts.command(epilog="Example: nodrop accounts reseal")
@json_option
def reseal(as_json: bool) -> None:
    """Seal all accounts anew, under the first of NODROP_MASTER_KEYS.

    Afterwards the older keys are not needed any more. Disabled accounts are resealed as well.
    """
    from core.settings import require
    from storage.sealing import Sealer

    given = settings()
    require(given, "database_url", "nodrop_master_keys")
    sealer = Sealer.from_setting(given.nodrop_master_keys)
    names = with_database(lambda db: _reseal(db, sealer))
    if as_json:
        print_json({"resealed": names})
        return
    click.echo(f"resealed {', '.join(names)}" if names else "no accounts, nothing to do")


async def sealed_accounts(db: Database) -> list[tuple[str, bytes]]:
    """Every account as it is stored, also the disabled ones: name and sealed value."""
    return [(row["name"], row["sealed"]) for row in await db.fetch(_SEALED)]


def belongs_to(name: str) -> str:
    """What an account's sealed value is bound to."""
    return f"account {name}"


def _content(source: str) -> bytes:
    """The bytes of the file, one more than is taken at most.

    Raises:
        Stop: it cannot be read.
    """
    from cli.account_file import FILE_BYTES_MAX

    if source == "-":
        return sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        mode = path.stat().st_mode
    except OSError as error:
        raise Stop(f"{source}: {error.strerror or 'cannot be read'}", exit_code=2) from None
    if stat.S_ISREG(mode) and mode & READABLE_BY_OTHERS:
        warn(f"{source} can be read by others on this machine: chmod 600 {source}, and delete it afterwards")
    return content


async def _check_form(account: AccountConfig) -> None:
    """Open the adapter, which reads all of the credentials and calls nobody. Raises as `open_channel`."""
    from channels.adapters import open_channel
    from channels.transport import Transport

    async with Transport(timeout_s=1.0) as transport:
        open_channel(account, transport)


async def _put(db: Database, sealer: Sealer, account: AccountConfig, *, replace: bool) -> bool:
    from storage.accounts import list_accounts, put_account

    there = next((row for row in await list_accounts(db) if row.name == account.name), None)
    if there is not None:
        _check_replaceable(there, account, replace=replace)
    return await put_account(db, sealer, account)


def _check_replaceable(there: AccountRow, account: AccountConfig, *, replace: bool) -> None:
    if not replace:
        raise Stop(f"there is an account {account.name} already: use --replace to change it, or another name")
    if there.channel != account.channel:
        raise Stop(
            f"{account.name} is an account at {there.channel}, and its payments are there: "
            f"add the one at {account.channel} under another name"
        )


async def _disable(db: Database, name: str, *, force: bool) -> int:
    """How many of its payments are open; it is disabled if there are none, or by force."""
    from storage.accounts import enable_account

    count: int = await db.fetchval(_OPEN_PAYMENTS, name)
    if (force or count == 0) and not await enable_account(db, name, enabled=False):
        raise _no_account(name)
    return count


async def _reseal(db: Database, sealer: Sealer) -> list[str]:
    """The names of what was resealed. All of them are opened before the first is written."""
    opened = [(name, sealed, sealer.open(sealed, belongs_to=belongs_to(name))) for name, sealed in await sealed_accounts(db)]
    for name, sealed, plain in opened:
        await db.execute(_RESEAL, name, sealed, sealer.seal(plain, belongs_to=belongs_to(name)))
    return [name for name, _, _ in opened]


def _no_account(name: str) -> Stop:
    return Stop(f"there is no account {name}; `nodrop accounts list` shows them")
