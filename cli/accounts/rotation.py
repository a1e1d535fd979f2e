"""New keys for an account: its payments, its callback address and its settings stay as they are."""

from __future__ import annotations

import msgspec
from msgspec.structs import asdict, replace

from channels.credentials import changed_identity, fully_replaced
from cli.accounts.account_file import content_of, draft_account, open_once
from cli.output import Stop
from core.account import AccountConfig
from storage.postgres.accounts import open_account, replace_account, sealed_accounts
from storage.postgres.database import Database
from storage.sealing import Sealer


async def rotate_account(db: Database, sealer: Sealer, name: str, source: str) -> list[str]:
    """The lists of keys of which no old one is kept.

    Raises:
        Stop: there is no such account, or the file is of another one.
    """
    row = next((row for row in await sealed_accounts(db) if row.name == name), None)
    if row is None:
        raise Stop(f"there is no account {name}; `nodrop accounts list` shows them")
    current = open_account(row, sealer)
    kept = {key: value for key, value in asdict(current).items() if key not in ("name", "credentials", "enabled")}
    account = draft_account(name, source, content_of(source), kept).complete()
    _check_rotation(current, account, changed_identity(current.channel, current.credentials, account.credentials))
    await open_once(account)
    if not await replace_account(db, sealer, row, account):
        raise Stop(f"{name} was changed at the same time: look at it, and run this again")
    return fully_replaced(current.channel, current.credentials, account.credentials)


def _check_rotation(current: AccountConfig, account: AccountConfig, moved_keys: list[str]) -> None:
    """Raises Stop for what is more than other keys to the same account."""
    if current.channel != account.channel:
        raise Stop(f"{current.name} is an account at {current.channel}; another channel's is added under another name")
    if moved_keys:
        says = "is" if len(moved_keys) == 1 else "are"
        raise Stop(
            f"{' and '.join(moved_keys)} {says} another's, so it is another account: add it under another name, for "
            f"{current.name}'s payments are where they were started"
        )
    settings_of = (replace(one, credentials={}, enabled=True) for one in (current, account))
    if len({msgspec.json.encode(one) for one in settings_of}) > 1:
        raise Stop("the file has other settings too: `nodrop accounts add --replace` changes those")
