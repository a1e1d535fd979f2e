"""`nodrop keys`: the keys of the merchant's backends, and new secrets for the environment. A secret is printed once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from secrets import token_hex

import click

from cli.audit import this_act
from cli.environment import with_database
from cli.notify_secrets import new_secret
from cli.output import Stop, json_option, print_json, print_table, warn
from cli.spans import Span
from core.act_names import ActName
from storage.postgres.api_keys import ALL_SCOPES, ApiKey, Scope, create_api_key, list_api_keys, revoke_api_key
from storage.postgres.database import Database
from storage.sealing import new_master_key

NAME_CHARACTERS_MAX = 100
PER_MINUTE_MAX = 1_000_000


@click.group(epilog="Example: nodrop keys create shop-backend")
def keys() -> None:
    """API keys, master keys and notification secrets."""


@keys.command(epilog="Example: nodrop keys create shop-backend --scope orders --scope read --expires 90d")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    help="What it may do; several times for several. Without it: everything.",
)
@click.option("--expires", "expires_in", type=Span(), help="It ends after so long: 12h, 90d. Without it: never.")
@click.option(
    "--per-minute",
    type=click.IntRange(1, PER_MINUTE_MAX),
    help="Requests a minute, in each web process. Without it: no limit.",
)
@click.option("--operator", help="The operator whose key it is: what it does that operator does. Without it: nobody's.")
@json_option
def create(
    name: str,
    *,
    scopes: Sequence[str],
    expires_in: timedelta | None,
    per_minute: int | None,
    operator: str | None,
    as_json: bool,
) -> None:
    """Make an API key.

    It is for a backend of the merchant, or a person, and printed this once, for only its hash is kept. NAME is for
    people, to know later whose key it is. Scopes: `orders` places, pays and refreshes orders, `read` lists and shows
    them, `operate` ends them, `metrics` reads /metrics. A key of an operator ends when the operator is disabled, and
    does not operate while the role is viewer; a key of nobody neither asks for nor agrees to a refund that needs two.
    """
    name = name.strip()
    if not (0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable()):
        raise click.BadParameter(f"1 to {NAME_CHARACTERS_MAX} printable characters", param_hint="NAME")

    async def make(db: Database) -> tuple[ApiKey, str]:
        if operator is not None:
            await _check_operator(db, operator)
        return await create_api_key(
            db,
            name,
            scopes=map(Scope, scopes) if scopes else ALL_SCOPES,
            expires_in_s=None if expires_in is None else expires_in.total_seconds(),
            requests_per_minute=per_minute,
            operator=operator,
        )

    act = this_act(ActName.KEY_CREATE, name, scopes=list(scopes) or "all", operator=operator)
    key, text = with_database(make, act=act)
    if as_json:
        given = {"id": key.id, "name": key.name, "scopes": _in_order(key.scopes), "operator": key.operator, "key": text}
        print_json(given)
        return
    click.echo(text)
    may = "everything (--scope limits it)" if key.scopes == ALL_SCOPES else ", ".join(_in_order(key.scopes))
    warn(f"this key of {key.name} is shown this once; its id is {key.id}, and it may do: {may}")


@keys.command("list", epilog="Example: nodrop keys list --json")
@json_option
def list_(*, as_json: bool) -> None:
    """List API keys, without their secrets.

    "last used" is to the minute.
    """
    rows = with_database(list_api_keys)
    if as_json:
        print_json(rows)
        return
    columns = ("id", "name", "operator", "scopes", "per minute", "created", "expires", "last used", "revoked")
    table = [
        (
            row.id,
            row.name,
            row.operator,
            " ".join(row.scopes),
            row.requests_per_minute,
            row.created_at,
            row.expires_at,
            row.last_used_at,
            row.revoked_at,
        )
        for row in rows
    ]
    print_table(columns, table, empty="no API keys; `nodrop keys create` makes one")


@keys.command(epilog="Example: nodrop keys revoke key_0123456789ab")
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """End an API key.

    Ten seconds later no process takes it any more.
    """
    if not with_database(lambda db: revoke_api_key(db, key_id), act=this_act(ActName.KEY_REVOKE, key_id)):
        raise Stop(f"there is no valid API key with the id {key_id}; `nodrop keys list` shows them")
    click.echo(f"revoked {key_id}; within ten seconds no process takes it any more")


@keys.command(epilog='Example: export NODROP_MASTER_KEYS="$(nodrop keys master)"')
@json_option
def master(*, as_json: bool) -> None:
    """Make an entry for NODROP_MASTER_KEYS.

    The credentials of accounts are sealed under it, and cannot be read without it: keep it where the
    backups of the database are not. docs/operations.md shows how to change to a new one.
    """
    _secret("master_key", new_master_key(f"k{token_hex(3)}"), as_json=as_json)


@keys.command(epilog='Example: export NOTIFY_SECRETS="$(nodrop keys notify)"')
@json_option
def notify(*, as_json: bool) -> None:
    """Make an entry for NOTIFY_SECRETS.

    Notifications are signed with it, as Standard Webhooks has it; the merchant verifies with the same. Several, with a
    comma between, all sign: so the merchant can change over at any moment. `nodrop secrets` gives single hosts their
    own.
    """
    _secret("notify_secret", new_secret(), as_json=as_json)


async def _check_operator(db: Database, name: str) -> None:
    """Raises Stop: there is no such operator, or one who is disabled."""
    from storage.postgres.operators import find_operator

    operator = await find_operator(db, name)
    if operator is None or operator.disabled_at is not None:
        raise Stop(f"there is no operator {name} who is enabled; `nodrop operators list` shows them")


def _in_order(scopes: frozenset[Scope]) -> list[str]:
    return [scope.value for scope in Scope if scope in scopes]


def _secret(name: str, text: str, *, as_json: bool) -> None:
    """Alone on standard output, so that a shell can take it as it is."""
    if as_json:
        print_json({name: text})
    else:
        click.echo(text)
