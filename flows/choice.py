"""The accounts that a buyer may choose on an order's page: checked when the order is placed, and read for the page."""

from __future__ import annotations

from collections.abc import Sequence

from core import paying
from core.errors import InvalidRequest, UnknownAccount
from core.order import OrderState
from core.paying import Device, Way
from runtime.accounts import Account
from runtime.resources import Resources


async def check_choice(resources: Resources, names: Sequence[str], currency: str) -> None:
    """Check that each of these accounts can take the order's money, all of them in one world.

    Raises:
        UnknownAccount: one is not known, or switched off.
        InvalidRequest: one takes another currency only, or some move real money and others do not.
    """
    accounts = [await resources.accounts.get_enabled(name) for name in names]
    for account in accounts:
        if account.channel.checkouts.currency not in ("", currency):
            taken = account.channel.checkouts.currency
            raise InvalidRequest(f"accounts: {account.config.name} takes {taken} only, and the order is in {currency}")
    if len({account.config.live for account in accounts}) > 1:
        raise InvalidRequest("accounts: some of them move real money, and others test money")


async def ways_to_pay(resources: Resources, state: OrderState, device: Device) -> tuple[Way, ...]:
    """Ways by which the buyer may pay now; none when the order is over, or money has come for it."""
    if not paying.can_start(state):
        return ()
    enabled = []
    for name in paying.choice(state):
        try:
            account = await resources.accounts.get_enabled(name)
        except UnknownAccount:  # switched off or removed since the order was placed
            continue
        if not state.is_other_world(account.config.live):
            enabled.append((name, account.config.channel))
    return paying.ways(enabled, device, has_openid=paying.openid_of(state) is not None)


async def is_other_world(resources: Resources, state: OrderState, account: Account) -> bool:
    """Whether the order is about real money and the account about test money, or the other way round."""
    live = account.config.live
    return state.is_other_world(live) or await world_of(resources, state) not in (None, live)


async def is_test_money(resources: Resources, state: OrderState) -> bool:
    """Whether the order moves test money for certain: by its payments, before there is one by the accounts to choose
    from.
    """
    return await world_of(resources, state) is False


async def world_of(resources: Resources, state: OrderState) -> bool | None:
    """Whether the order is about real money: by its payments, before there is one by the accounts to choose from.

    None: it is not known, or they are of both worlds.
    """
    if state.payments:
        return state.live
    worlds = set()
    for name in paying.choice(state):
        try:
            worlds.add((await resources.accounts.get(name)).config.live)
        except UnknownAccount:  # removed since the order was placed
            continue
    return worlds.pop() if len(worlds) == 1 else None
