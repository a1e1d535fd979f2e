"""An operator switches an account off or on: no new payments there, while everything that is open goes on."""

from __future__ import annotations

from core.acts import Line, Preview
from core.errors import NotFound, NotPossible
from core.sentences import Sentence
from storage.postgres.accounts import AccountRow, count_open_work, enable_account, list_accounts
from storage.postgres.database import Database

COUNTED_MAX = 10_000
"""More are not counted: the preview must be quick."""


async def preview_switch(db: Database, name: str, *, enabled: bool) -> Preview:
    """The preview: what it would stop, and what goes on.

    Raises:
        NotFound: there is no such account.
    """
    accounts = {row.name: row for row in await list_accounts(db)}
    if name not in accounts:
        raise NotFound(Sentence("there is no account {account}; `nodrop accounts list` shows them", account=name))
    if accounts[name].enabled is enabled:
        return Preview(lines=(), refusal=_already(enabled=enabled))
    if enabled:
        return Preview(lines=(Line("account.starts", {"account": name}),))
    work = await count_open_work(db, name, limit=COUNTED_MAX + 1)
    lines = (
        Line("account.stops", {"account": name}),
        Line("account.goes_on", {"pending": _count(work.payments), "refunds": _count(work.refunds)}),
    )
    return Preview(lines=lines, warnings=_warnings(accounts, name))


async def switch_account(db: Database, name: str, *, enabled: bool) -> None:
    """Switch it; every process knows within seconds.

    Raises:
        NotFound: there is no such account.
        NotPossible: it is switched so already.
    """
    if await enable_account(db, name, enabled=enabled):
        return
    if name in {row.name for row in await list_accounts(db)}:
        raise NotPossible(_already(enabled=enabled))
    raise NotFound(Sentence("there is no account {account}; `nodrop accounts list` shows them", account=name))


def _already(*, enabled: bool) -> Line:
    return Line("account.is_on" if enabled else "account.is_off")


def _warnings(accounts: dict[str, AccountRow], name: str) -> tuple[Line, ...]:
    has_others = any(row.enabled for row in accounts.values() if row.name != name)
    return () if has_others else (Line("account.is_last"),)


def _count(count: int) -> str:
    return f"{COUNTED_MAX}+" if count > COUNTED_MAX else str(count)
