"""The payment of a row, by every id that the row has, and by those that the channel has for it.

A watched Checkout Session is known here by its own id, while the statement names its PaymentIntent and its charge: only
the channel says that these are one payment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import Struct

from channels.base import ResolvesRows, StatementRow
from core.admission import CallKind, Urgency
from core.errors import ChannelRefused, OutcomeUnknown
from core.lifecycle import is_surely_named, named_payment
from core.order import Payment
from flows.channel_call import Deferred, call_channel
from flows.reconcile.patience import Patience
from runtime.accounts import Account
from runtime.resources import Resources
from storage.postgres.accounts import find_names_beside
from storage.postgres.payments import find_payments_by_ids


class Found(Struct, frozen=True, kw_only=True):
    """Payments by row number. Rows `elsewhere` are of payments under another name of the account, whose own run
    compares them. The channel did not say which payments the `unresolved` rows are of.
    """

    payments: dict[int, Payment]
    elsewhere: frozenset[int]
    unresolved: frozenset[int]

    def unknown(self, rows: Mapping[int, StatementRow]) -> dict[int, StatementRow]:
        """Rows of payments that nodrop does not know."""
        known = self.payments.keys() | self.elsewhere
        return {row_no: row for row_no, row in rows.items() if row_no not in known}


class RowLookup:
    """Looks up the rows of one run. Without `asks`, the channel is not called."""

    def __init__(self, resources: Resources, account: Account, patience: Patience, *, asks: bool) -> None:
        self._resources = resources
        self._account = account
        self._patience = patience
        self._names_beside: list[str] | None = None
        self._resolver = account.channel if asks and isinstance(account.channel, ResolvesRows) else None

    async def find(self, rows: Mapping[int, StatementRow]) -> Found:
        """The payments of these rows, by row number. Any other row is of a payment that is not known here.

        Raises:
            ChannelUnavailable: the channel gives no results any more.
        """
        name = self._account.config.name
        found = await self._find(name, {row_no: row.all_ids for row_no, row in rows.items()})
        left = {row_no: row for row_no, row in rows.items() if row_no not in found}
        elsewhere = await self._find_elsewhere(left)
        further = await self._resolve({row_no: row for row_no, row in left.items() if row_no not in elsewhere})
        found |= await self._find(name, {row_no: ids for row_no, ids in further.items() if ids is not None})
        unresolved = frozenset(row_no for row_no, ids in further.items() if ids is None)
        return Found(payments=found, elsewhere=elsewhere, unresolved=unresolved)

    async def find_named(self, ids: Mapping[int, Sequence[str]]) -> dict[int, Payment]:
        """The payments that these ids of rows name, by row number."""
        return await self._find(self._account.config.name, ids)

    async def _find_elsewhere(self, rows: Mapping[int, StatementRow]) -> frozenset[int]:
        """Rows of payments under other names: by our number, which is nobody else's, or by an id of the channel."""
        if not rows:
            return frozenset()
        if self._names_beside is None:
            self._names_beside = await find_names_beside(self._resources.db, self._account.config.name)
        ids = {row_no: row.all_ids for row_no, row in rows.items()}
        found = [await self._find(name, ids) for name in self._names_beside]
        return frozenset(
            row_no for of_name in found for row_no, payment in of_name.items() if is_surely_named(payment, ids[row_no])
        )

    async def _find(self, name: str, ids: Mapping[int, Sequence[str]]) -> dict[int, Payment]:
        wanted = {id_ for of_row in ids.values() for id_ in of_row}
        payments = await find_payments_by_ids(self._resources.db, name, wanted)
        named = {row_no: named_payment(of_row, payments) for row_no, of_row in ids.items()}
        return {row_no: payment for row_no, payment in named.items() if payment is not None}

    async def _resolve(self, rows: Mapping[int, StatementRow]) -> dict[int, Sequence[str] | None]:
        if self._resolver is None or not rows:
            return {}
        resolver = self._resolver
        further = await asyncio.gather(*(self._ids_of(resolver, row) for row in rows.values()))
        return dict(zip(rows, further, strict=True))

    async def _ids_of(self, resolver: ResolvesRows, row: StatementRow) -> Sequence[str] | None:
        async def call() -> Sequence[str] | Deferred | None:
            try:
                return await call_channel(
                    self._resources, self._account, CallKind.QUERY, Urgency.REFRESH, resolver.resolve_row, row
                )
            except ChannelRefused:
                return ()
            except OutcomeUnknown:
                return None

        return await self._patience.until_clear(call, lambda ids: ids is not None)
