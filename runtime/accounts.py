"""The accounts of this process: opened adapters, read again within ten seconds, kept through a database outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import structlog
from msgspec.structs import replace

from channels.adapters import open_channel, world_of
from channels.base import Channel
from channels.hosts import host_problem
from channels.transport import CALLING, Calling, Transport
from core.account import AccountConfig
from core.admission import Admission, CallKind, Urgency
from core.errors import ConfigurationError, DatabaseUnavailable, NodropError, UnknownAccount
from core.lifecycle import DoublePolicy, LatePolicy, Rules
from core.sentences import Sentence
from core.settings import Settings
from runtime.gate import admitted_request
from storage.postgres.accounts import SealedAccount, open_account, sealed_accounts, set_world
from storage.postgres.database import Database
from storage.redis.client import Patience
from storage.sealing import Sealer

RELOAD_S = 5.0
"""Together with a request under way, a change is in force everywhere within ten seconds."""

READ_S = 1.0
"""Limit of a reading while an older one can be used: a callback, whose channel waits five seconds, must not wait longer
for a Postgres that does not answer."""

FIRST_READ_S = 3.0

UNKNOWN_RELOAD_S = 1.0
"""A name that is not known is looked up in Postgres at most once a second, however many ask for it."""

KEEP_CURRENT_S = 60.0
"""Interval at which each process lets its accounts renew certificates; the adapters decide what is due."""

log = structlog.get_logger()


@asynccontextmanager
async def answering_despite_lag(seconds: float) -> AsyncIterator[Patience]:
    """A limit for Postgres, which leaves out the lag of this process: it reads and stores late rather than not at all.
    One that is busy all the time has twice as long.

    Raises:
        DatabaseUnavailable: at the end of the block, which was cancelled.
    """
    try:
        async with asyncio.timeout(2 * seconds), Patience(seconds) as patience:
            yield patience
    except TimeoutError:
        raise DatabaseUnavailable(f"Postgres did not answer within {seconds:.1f} s") from None


class Account:
    """One opened account: its configuration, its adapter, and the rules for decisions about its payments."""

    def __init__(self, config: AccountConfig, channel: Channel, settings: Settings, admission: Admission) -> None:
        self.config = config
        self.gate = partial(admitted_request, admission, config)
        self.channel = channel
        self.rules = Rules(
            backoff=settings.backoff(config.early_queries_s),
            payable_margin_s=settings.payable_margin_s,
            unanswered_s=settings.callback_unanswered_s,
            late_policy=config.late_policy,
            double_policy=config.double_policy,
            checkouts=channel.checkouts,
        )
        self.trusts_when_unanswered = config.trust_callback == "when_unanswered"

    @contextmanager
    def for_strangers(self) -> Iterator[None]:
        """Give the requests of this block the share of strangers: anybody can send the message that causes them."""
        token = CALLING.set(Calling(kind=CallKind.VERIFY, urgency=Urgency.STRANGER, gate=self.gate))
        try:
            yield
        finally:
            CALLING.reset(token)


class Accounts:
    """Accounts by name. An account that cannot be opened is left out and logged; the others work."""

    def __init__(
        self,
        db: Database,
        sealer: Sealer,
        transport: Transport,
        settings: Settings,
        admission: Admission,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._settings = settings
        self._sealer = sealer
        self._transport = transport
        self._admission = admission
        self._clock = clock
        self._opened: dict[str, Account] = {}
        self._read_at = -RELOAD_S
        self._missed_at = -UNKNOWN_RELOAD_S
        self._is_out_of_reach = False
        self._reading = asyncio.Lock()

    async def get_enabled(self, name: str) -> Account:
        """The account with this name, for a new payment. Raises as `get`, also for one that is switched off."""
        account = await self.get(name)
        if not account.config.enabled:
            raise UnknownAccount(Sentence("account {account} is switched off", account=name))
        return account

    async def get(self, name: str) -> Account:
        """The account with this name, switched off or not: payments that it has must still become definite.

        Raises:
            UnknownAccount: there is none.
            DatabaseUnavailable: it is not known here, and Postgres cannot be read.
        """
        await self._refresh(is_missed=name not in self._opened)
        account = self._opened.get(name)
        if account is None and self._is_out_of_reach:
            raise DatabaseUnavailable("the accounts could not be read")
        if account is None:
            raise UnknownAccount(Sentence("there is no account {account}", account=name))
        return account

    async def get_within(self, name: str, seconds: float) -> tuple[Account, float]:
        """The account as `get`, and the time that Postgres was waited for: none as long as it was read lately."""
        known = self._opened.get(name)
        if known is not None and not self._is_due(is_missed=False):
            return known, 0.0
        async with answering_despite_lag(seconds) as reading:
            account = await self.get(name)
        return account, reading.waited_s

    async def all_enabled(self) -> list[Account]:
        """Those that are switched on and can be opened, in no order that matters.

        Raises:
            DatabaseUnavailable: none is known here, and Postgres cannot be read.
        """
        await self._refresh(is_missed=False)
        if self._is_out_of_reach and not self._opened:
            raise DatabaseUnavailable("the accounts could not be read")
        return [account for account in self._opened.values() if account.config.enabled]

    async def keep_current(self) -> int:
        """Let every enabled account renew what grows old, side by side; how many could not, which ends nothing.

        Raises as `all_enabled`.
        """
        accounts = await self.all_enabled()
        await self._admission.learn(account.config.name for account in accounts)
        results = await asyncio.gather(*map(_keep_current, accounts), return_exceptions=True)
        failed = 0
        for account, error in zip(accounts, results, strict=True):
            if isinstance(error, NodropError):
                log.warning("account_not_kept_current", account=account.config.name, reason=type(error).__name__)
            elif isinstance(error, Exception):  # our own bug in one adapter must not keep the others from theirs
                log.error("keep_current_broke", account=account.config.name, exc_info=error)
            failed += error is not None
        return failed

    async def _refresh(self, *, is_missed: bool) -> None:
        """Read them again if that is due. `is_missed`: somebody wants one that is not known. Who wants one that is open
        does not wait for the reading of others, which may be about names that strangers make up.
        """
        if not self._is_due(is_missed=is_missed) or (not is_missed and self._opened and self._reading.locked()):
            return
        async with self._reading:
            if not self._is_due(is_missed=is_missed):
                return
            try:
                async with answering_despite_lag(FIRST_READ_S if is_missed or not self._opened else READ_S):
                    await self._read()
                self._is_out_of_reach = False
            except DatabaseUnavailable as error:
                self._is_out_of_reach = True
                log.warning("accounts_not_reloaded", reason=type(error).__name__)
            self._read_at = self._clock()
            if is_missed:
                self._missed_at = self._read_at

    def _is_due(self, *, is_missed: bool) -> bool:
        """Whether to read again. A recent reading for another reason does not delay finding a new account."""
        if is_missed:
            return self._clock() - self._missed_at >= UNKNOWN_RELOAD_S
        return self._clock() - self._read_at >= RELOAD_S

    async def _read(self) -> None:
        opened = {}
        for row in await sealed_accounts(self._db):
            known = self._opened.get(row.name)
            try:
                opened[row.name] = self._open(row, known)
                await self._keep_world(row, opened[row.name].config)
            except ConfigurationError as error:
                log.error("account_not_opened", account=row.name, reason=error.detail)
                if known is not None:
                    opened[row.name] = known
        self._opened = opened

    async def _keep_world(self, row: SealedAccount, config: AccountConfig) -> None:
        """Store the account's world before any payment of it is handled here: only its opened settings tell it."""
        world = world_of(config)
        if row.world != world:
            await set_world(self._db, row.name, world)

    def _open(self, row: SealedAccount, known: Account | None) -> Account:
        """The account as it is stored; the one that is open already if nothing has changed."""
        config = open_account(row, self._sealer)
        if known is not None and known.config == config:
            return known
        problem = host_problem(config)
        if problem is not None:
            log.warning("account_in_wrong_world", account=config.name, reason=f"{problem.key} {problem.says}")
        if known is not None and _for_adapter(known.config) == _for_adapter(config):
            return Account(config, known.channel, self._settings, self._admission)
        channel = open_channel(config, self._transport)
        return Account(config, channel, self._settings, self._admission)


async def _keep_current(account: Account) -> None:
    # The context is that of this account's task alone.
    CALLING.set(Calling(kind=CallKind.VERIFY, urgency=Urgency.FRESH, gate=account.gate))
    await account.channel.keep_current()


def _for_adapter(config: AccountConfig) -> AccountConfig:
    """The part of the configuration that an adapter is built from.

    A change of the rest, which only flows read, keeps the adapter with its fetched certificates and tokens.
    """
    return replace(
        config,
        rate_per_s=1,
        early_queries_s=(),
        late_policy=LatePolicy.ACCEPT,
        double_policy=DoublePolicy.FLAG,
        exclusive=False,
        enabled=True,
    )
