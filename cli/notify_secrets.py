"""`nodrop secrets`: notification secrets of single hosts. A secret is printed once, when it is made here."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING

import click

from cli.audit import this_act
from cli.environment import current_settings, with_database
from cli.output import Stop, json_option, print_json, print_table, warn
from core.act_names import ActName

if TYPE_CHECKING:
    from core.settings import Settings
    from storage.postgres.database import Database
    from storage.postgres.notify_secrets import SealedSecrets
    from storage.sealing import Sealer

    _Put = Callable[[Database, Sealer], Awaitable[Sequence[str]]]

SECRET_BYTES = 32
"""Standard Webhooks wants 24 to 64."""

IN_FORCE = "in force within ten seconds"

_from_option = click.option("--from", "source", metavar="FILE", help="The secret; - reads standard input.")


@click.group("secrets", epilog="Example: nodrop secrets rotate shop.example.com")
def notify_secrets() -> None:
    """Notification secrets of single hosts.

    All other hosts are signed for with NOTIFY_SECRETS. docs/notifications.md shows how to change a secret.
    """


@notify_secrets.command("set", epilog="Example: nodrop secrets set shop.example.com")
@click.argument("host")
@_from_option
@click.option("--replace", is_flag=True, help="Also when the host has secrets already: they end at once.")
@json_option
def set_(host: str, *, source: str | None, replace: bool, as_json: bool) -> None:
    """Sign for a host with one secret of its own.

    No other secret signs for it from now on. A host that receives notifications already is changed by `nodrop secrets
    rotate`, without a gap. The secret is made here and printed, or read from FILE.
    """
    settings, host, secret = _settings(), _host(host), _secret(source)

    async def put(db: Database, sealer: Sealer) -> Sequence[str]:
        current = await _find(db, host)
        if current is not None and not replace:
            raise Stop(f"{host} has secrets already: `nodrop secrets rotate` changes them, --replace ends them")
        return await _put(db, sealer, host, [secret], over=current)

    _change(ActName.SECRET_SET, settings, host, put, made=None if source else secret, as_json=as_json)


@notify_secrets.command(epilog="Example: nodrop secrets rotate shop.example.com")
@click.argument("host")
@_from_option
@json_option
def rotate(host: str, *, source: str | None, as_json: bool) -> None:
    """Sign for a host with a new secret beside the present one.

    Both sign, until `nodrop secrets retire`. The present one is the host's own, or else the one of NOTIFY_SECRETS. The
    new one is made here and printed, or read from FILE.
    """
    settings, host, secret = _settings(), _host(host), _secret(source)

    async def put(db: Database, sealer: Sealer) -> Sequence[str]:
        from storage.postgres.notify_secrets import SECRETS_MAX, open_secrets

        current = await _find(db, host)
        present = settings.notify_keys() if current is None else open_secrets(current, sealer)
        if len(present) >= SECRETS_MAX:
            command = "set NOTIFY_SECRETS to one" if current is None else f"`nodrop secrets retire {host}`"
            raise Stop(f"{len(present)} secrets sign for {host} already: end that change first; {command}")
        if secret in present:
            raise Stop(f"this secret signs for {host} already")
        return await _put(db, sealer, host, [secret, *present], over=current)

    _change(ActName.SECRET_ROTATE, settings, host, put, made=None if source else secret, as_json=as_json)


@notify_secrets.command(epilog="Example: nodrop secrets retire shop.example.com")
@click.argument("host")
@json_option
def retire(host: str, *, as_json: bool) -> None:
    """End the older of a host's two secrets.

    When the merchant verifies with the new one, and ten seconds after `nodrop secrets rotate` at the earliest.
    """
    settings, host = _settings(), _host(host)

    async def put(db: Database, sealer: Sealer) -> Sequence[str]:
        from storage.postgres.notify_secrets import SECRETS_MAX, open_secrets

        current = await _find(db, host)
        secrets = () if current is None else open_secrets(current, sealer)
        if len(secrets) < SECRETS_MAX:
            raise Stop(f"{host} has no second secret to end; `nodrop secrets list` shows how many sign")
        return await _put(db, sealer, host, secrets[:1], over=current)

    _change(ActName.SECRET_RETIRE, settings, host, put, made=None, as_json=as_json)


@notify_secrets.command(epilog="Example: nodrop secrets remove shop.example.com")
@click.argument("host")
@json_option
def remove(host: str, *, as_json: bool) -> None:
    """End a host's own secrets: NOTIFY_SECRETS signs for it again."""
    from storage.postgres.notify_secrets import delete_secrets

    host = _host(host)
    if not with_database(lambda db: delete_secrets(db, host), act=this_act(ActName.SECRET_REMOVE, host)):
        raise Stop(f"{host} has no secrets of its own; `nodrop secrets list` shows the hosts that have")
    if as_json:
        print_json({"host": host, "signing": 0})
    else:
        click.echo(f"NOTIFY_SECRETS signs for {host}; {IN_FORCE}")


@notify_secrets.command("list", epilog="Example: nodrop secrets list --json")
@json_option
def list_(*, as_json: bool) -> None:
    """List hosts with secrets of their own, without these."""
    from storage.postgres.notify_secrets import list_hosts

    rows = with_database(list_hosts)
    if as_json:
        print_json(rows)
        return
    table = [(row.host, row.secrets, row.created_at, row.updated_at) for row in rows]
    print_table(("host", "secrets", "created", "changed"), table, empty="none: NOTIFY_SECRETS signs for every host")


def new_secret() -> str:
    """A secret as Standard Webhooks has it."""
    return "whsec_" + b64encode(token_bytes(SECRET_BYTES)).decode()


def _settings() -> Settings:
    return current_settings("database_url", "nodrop_master_keys")


def _host(text: str) -> str:
    """The host as deliveries name it: `Shop.Example.com.` and `shop.example.com` are one."""
    import httpx

    from flows.notify import signing_host

    try:
        host = signing_host(httpx.URL(f"https://{f'[{text}]' if text.count(':') > 1 else text}/"))
    except (httpx.InvalidURL, ValueError):
        host = ""
    if not host or any(mark in text for mark in "/?#@") or (":" in text and text.count(":") == 1):
        raise click.BadParameter("a host as in the notify_url, without scheme, port and path", param_hint="HOST")
    return host


def _secret(source: str | None) -> str:
    """A new secret, or the one in the file."""
    if source is None:
        return new_secret()
    from core.errors import ConfigurationError
    from flows.signers import signer_of

    try:
        secret = (sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")).strip()
        signer_of(secret, name="FILE")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"it cannot be read ({type(error).__name__})", param_hint="--from") from None
    except ConfigurationError as error:
        raise click.BadParameter(error.detail, param_hint="--from") from None
    return secret


async def _find(db: Database, host: str) -> SealedSecrets | None:
    from storage.postgres.notify_secrets import sealed_secrets

    return next((row for row in await sealed_secrets(db) if row.host == host), None)


async def _put(
    db: Database, sealer: Sealer, host: str, secrets: Sequence[str], *, over: SealedSecrets | None
) -> Sequence[str]:
    from storage.postgres.notify_secrets import put_secrets

    if not await put_secrets(db, sealer, host, secrets, over=over):
        raise Stop(f"the secrets of {host} were changed at the same time: look at them, and run this again")
    return secrets


def _change(action: ActName, settings: Settings, host: str, put: _Put, *, made: str | None, as_json: bool) -> None:
    """Carry it out and print it. `made`: the secret that was made here, which is shown this once."""
    from storage.sealing import Sealer

    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    signing = len(with_database(lambda db: put(db, sealer), act=this_act(action, host)))
    if as_json:
        print_json({"host": host, "signing": signing} | ({} if made is None else {"secret": made}))
        return
    if made is not None:
        click.echo(made)
        warn("this secret is shown this once")
    warn(f"{signing} {'secret signs' if signing == 1 else 'secrets sign'} for {host}; {IN_FORCE}")
