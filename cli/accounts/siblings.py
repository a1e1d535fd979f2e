"""Other accounts of the same merchant: allowed, and rarely meant."""

from __future__ import annotations

from channels.adapters import ADAPTERS, is_same_merchant
from core.account import AccountConfig
from core.errors import ConfigurationError
from storage.postgres.accounts import open_account, sealed_accounts
from storage.postgres.database import Database
from storage.sealing import Sealer


async def find_siblings(db: Database, sealer: Sealer, account: AccountConfig) -> list[str]:
    """Names of the other stored accounts of this account's merchant; one that does not open is left out."""
    names = []
    for row in await sealed_accounts(db):
        try:
            other = open_account(row, sealer)
        except ConfigurationError:
            continue
        if other.name != account.name and other.channel in ADAPTERS and is_same_merchant(account, other):
            names.append(other.name)
    return names


def sibling_warning(names: list[str]) -> str:
    """The warning about these accounts."""
    return (
        f"the same merchant as {', '.join(names)}: a payment at the channel pays one order all the same, and a second "
        "order that claims it gets a case"
    )
