"""Certificates and keys that end soon, and keys in rotation whose old one is still in use; never a secret."""

from __future__ import annotations

from datetime import datetime, timedelta

from channels.adapters import ADAPTERS
from channels.credentials import expiries
from core.ending import Ending, EndingKind, Mark, mark_of, soonest_first
from core.errors import ConfigurationError
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.accounts import SealedAccount, open_account, sealed_accounts
from storage.postgres.api_keys import list_api_keys
from storage.postgres.database import Database
from storage.postgres.notify_secrets import list_hosts
from storage.postgres.orders import find_now
from storage.sealing import Sealer

WITHIN_DAYS = 30


async def find_ending(resources: Resources, *, within_days: int | None = WITHIN_DAYS) -> list[Ending]:
    """All that ends within so many days or has ended, soonest first; then what is in rotation. None: every end."""
    db, settings = resources.db, resources.settings
    now = await find_now(db)
    rows = await sealed_accounts(db)
    found = [*_certificates(rows, resources.sealer, now), *await _api_keys(db, now)]
    if within_days is not None:
        last = now + timedelta(days=within_days)
        found = [each for each in found if each.ends_at is not None and each.ends_at <= last]
    rotating = [*await _notify_secrets(db, settings), *_master_keys(rows, settings, resources.sealer)]
    return soonest_first([*found, *rotating])


async def find_certificates(resources: Resources, name: str) -> list[Ending]:
    """The certificates of one account, soonest first; none of one that there is not, or that does not open."""
    rows = [row for row in await sealed_accounts(resources.db) if row.name == name]
    return soonest_first(_certificates(rows, resources.sealer, await find_now(resources.db)))


def certificates_of(row: SealedAccount, sealer: Sealer, now: datetime) -> list[Ending]:
    """The certificates of one account, with the key that each stands under.

    Raises:
        ConfigurationError: the account does not open.
    """
    config = open_account(row, sealer)
    if config.channel not in ADAPTERS:
        return []
    return [
        Ending(
            kind=EndingKind.CERTIFICATE,
            name=row.name,
            what=f"credentials.{key}",
            ends_at=ends_at,
            mark=mark_of(ends_at, now),
        )
        for key, ends_at in expiries(config.channel, config.credentials)
    ]


def _certificates(rows: list[SealedAccount], sealer: Sealer, now: datetime) -> list[Ending]:
    found = []
    for row in rows:
        try:
            found += certificates_of(row, sealer, now)
        except ConfigurationError:  # logged by the processes that cannot open it
            continue
    return found


async def _api_keys(db: Database, now: datetime) -> list[Ending]:
    """Those with an end that were not revoked."""
    return [
        Ending(
            kind=EndingKind.API_KEY,
            name=key.name,
            what=key.id,
            ends_at=key.expires_at,
            mark=mark_of(key.expires_at, now),
        )
        for key in await list_api_keys(db)
        if key.expires_at is not None and key.revoked_at is None
    ]


async def _notify_secrets(db: Database, settings: Settings) -> list[Ending]:
    """Hosts that are signed for with two secrets, and NOTIFY_SECRETS with several."""
    found = [
        Ending(
            kind=EndingKind.NOTIFY_SECRET,
            name=host.host,
            what=f"{host.secrets} secrets",
            ends_at=None,
            since=host.updated_at,
            mark=Mark.ROTATING,
        )
        for host in await list_hosts(db)
        if host.secrets > 1
    ]
    count = len([text for text in settings.notify_secrets.split(",") if text.strip()])
    if count > 1:
        what = f"{count} secrets"
        found.append(
            Ending(kind=EndingKind.NOTIFY_SECRET, name="NOTIFY_SECRETS", what=what, ends_at=None, mark=Mark.ROTATING)
        )
    return found


def _master_keys(rows: list[SealedAccount], settings: Settings, sealer: Sealer) -> list[Ending]:
    """Each older master key, with the number of accounts that are still sealed under it."""
    ids = [text.partition(":")[0].strip() for text in settings.nodrop_master_keys.split(",") if text.strip()]
    under = [bytes(row.sealed).partition(b"\0")[0].decode("ascii", "replace") for row in rows]
    return [
        Ending(
            kind=EndingKind.MASTER_KEY,
            name=key_id,
            what=f"{under.count(key_id)} accounts",
            ends_at=None,
            mark=Mark.ROTATING,
        )
        for key_id in ids
        if key_id != sealer.first
    ]
