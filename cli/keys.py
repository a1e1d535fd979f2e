"""`nodrop keys`: the keys of the merchant's backends, and new secrets for the environment. A secret is printed once."""

from __future__ import annotations

import click

from cli.environment import with_database
from cli.output import Stop, json_option, print_json, print_table, warn

NAME_CHARACTERS_MAX = 100
NOTIFY_SECRET_BYTES = 32
"""Standard Webhooks wants 24 to 64."""


@click.group(epilog="Example: nodrop keys create shop")
def keys() -> None:
    """API keys, master keys and notification secrets."""


@keys.command(epilog="Example: nodrop keys create shop-backend")
@click.argument("name")
@json_option
def create(name: str, as_json: bool) -> None:
    """Make an API key for a backend of the merchant, and print it: this once, for only its hash is kept.

    NAME is for people, to know later whose key it is.
    """
    from storage.api_keys import create_api_key

    name = name.strip()
    if not (0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable()):
        raise click.BadParameter(f"1 to {NAME_CHARACTERS_MAX} printable characters", param_hint="NAME")
    key, text = with_database(lambda db: create_api_key(db, name))
    if as_json:
        print_json({"id": key.id, "name": key.name, "key": text})
        return
    click.echo(text)
    warn(f"that is the key of {key.name}, shown this once; its id is {key.id}. Send it as Authorization: Bearer <key>")


@keys.command("list", epilog="Example: nodrop keys list --json")
@json_option
def list_(as_json: bool) -> None:
    """List API keys, without their secrets."""
    from storage.api_keys import list_api_keys

    rows = with_database(list_api_keys)
    if as_json:
        print_json(rows)
        return
    columns = ("id", "name", "created", "revoked")
    print_table(columns, [(row.id, row.name, row.created_at, row.revoked_at) for row in rows], empty="no API keys")


@keys.command(epilog="Example: nodrop keys revoke key_0123456789ab")
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """End an API key: ten seconds later no process takes it any more."""
    from storage.api_keys import revoke_api_key

    if not with_database(lambda db: revoke_api_key(db, key_id)):
        raise Stop(f"there is no valid API key with the id {key_id}; `nodrop keys list` shows them")
    if as_json:
        print_json({"id": key_id, "revoked": True})
        return
    click.echo(f"revoked {key_id}; within ten seconds no process takes it any more")


@keys.command(epilog='Example: export NODROP_MASTER_KEYS="$(nodrop keys master)"')
@json_option
def master(as_json: bool) -> None:
    """Make an entry for NODROP_MASTER_KEYS, under which the accounts' credentials are sealed.

    To rotate: put the new entry in front of the old ones, with a comma between, restart every process, run `nodrop
    accounts reseal`, and only then drop the old ones. Without the key nobody can read the accounts again: keep it where
    the backups of the database are not.
    """
    from secrets import token_hex

    from storage.sealing import new_master_key

    _secret("master_key", new_master_key(f"k{token_hex(3)}"), as_json=as_json)


@keys.command(epilog='Example: export NOTIFY_SECRETS="$(nodrop keys notify)"')
@json_option
def notify(as_json: bool) -> None:
    """Make an entry for NOTIFY_SECRETS, with which notifications are signed (Standard Webhooks).

    To rotate: put the new entry beside the old one, with a comma between: both sign, so the merchant changes over
    whenever he likes. Then drop the old one.
    """
    from base64 import b64encode
    from secrets import token_bytes

    _secret("notify_secret", "whsec_" + b64encode(token_bytes(NOTIFY_SECRET_BYTES)).decode(), as_json=as_json)


def _secret(name: str, text: str, *, as_json: bool) -> None:
    """Alone on standard output, so that a shell can take it as it is."""
    if as_json:
        print_json({name: text})
    else:
        click.echo(text)
