"""One account for an operator: its settings without secrets, certificates, calls and breakers of this moment, and when
it was last heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from channels.adapters import ADAPTERS
from channels.credentials import texts_of
from core.account import AccountConfig
from core.ending import Ending
from core.errors import UnknownAccount
from core.reconciliation import Finding
from core.sentences import Sentence
from flows.ending import certificates_of
from runtime.resources import Resources
from storage.postgres.accounts import list_accounts, open_account, sealed_accounts
from storage.postgres.callback_history import find_last_callbacks
from storage.postgres.orders import find_now
from storage.postgres.reconciliation.runs import find_last_reconciliations


class LastReconciled(msgspec.Struct, frozen=True, kw_only=True):
    """The last finished reconciliation of a day: how long ago, and the differences that it found."""

    age_s: float
    differences: int


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say about an account. `settings` are those of its file; `credentials` name each key, with its
    value where that may be shown, and how many values it has elsewhere. `calls_in_use` count now against `rate_per_s`.
    """

    name: str
    channel: str
    enabled: bool
    created_at: datetime
    updated_at: datetime
    settings: Mapping[str, object]
    credentials: Mapping[str, str]
    certificates: tuple[Ending, ...]
    open_breakers: tuple[str, ...]
    calls_in_use: int
    rate_per_s: int
    callback_url: str
    last_callback_at: datetime | None
    last_reconciled: LastReconciled | None


async def read_account(resources: Resources, name: str) -> AccountFacts:
    """One account as it is now.

    Raises:
        UnknownAccount: there is none.
        ConfigurationError: no master key opens it.
    """
    db = resources.db
    row = next((row for row in await list_accounts(db) if row.name == name), None)
    sealed = next((row for row in await sealed_accounts(db) if row.name == name), None)
    if row is None or sealed is None:
        raise UnknownAccount(Sentence("there is no account {account}", account=name))
    config = open_account(sealed, resources.sealer)
    last = next((each for each in await find_last_reconciliations(db) if each.account == name), None)
    return AccountFacts(
        name=name,
        channel=row.channel,
        enabled=row.enabled,
        created_at=row.created_at,
        updated_at=row.updated_at,
        settings=settings_of(config),
        credentials=credentials_of(config),
        certificates=tuple(certificates_of(sealed, resources.sealer, await find_now(db))),
        open_breakers=tuple(kind.value for _, kind in await resources.admission.open_breakers([name])),
        calls_in_use=(await resources.admission.calls_in_use([name])).get(name, 0),
        rate_per_s=config.rate_per_s,
        callback_url=f"{resources.settings.public_url.rstrip('/')}/callbacks/{name}",
        last_callback_at=(await find_last_callbacks(db)).get(name),
        last_reconciled=None
        if last is None
        else LastReconciled(
            age_s=last.age_s, differences=sum(last.counts.get(kind, 0) for kind in Finding if kind.is_difference)
        ),
    )


def settings_of(config: AccountConfig) -> dict[str, object]:
    """The settings of an account's file, without name, channel and credentials."""
    shown = msgspec.to_builtins(config)
    return {key: value for key, value in shown.items() if key not in ("name", "channel", "credentials", "enabled")}


def credentials_of(config: AccountConfig) -> dict[str, str]:
    """Each key with what may be shown: its value if it is public or says whose account it is, otherwise how many there
    are.
    """
    adapter = ADAPTERS.get(config.channel)
    public = frozenset() if adapter is None else frozenset((*adapter.description.identity, *adapter.description.public))
    found = {}
    for key, value in config.credentials.items():
        texts = [text for _, text in texts_of(value)]
        if key in public and len(texts) == 1:
            found[key] = texts[0]
        elif not texts:
            found[key] = str(value) if isinstance(value, bool) else "not set"
        else:
            found[key] = f"{len(texts)} set"
    return found
