"""Accounts as the simulated channels open them: with what they hand out a merchant gets on, also while keys change."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from channels.adapters import open_channel
from channels.base import Callback
from core.account import AccountConfig
from core.errors import CallbackForged
from core.evidence import Paid
from simulator.kernel.base import Account, Message, Opened
from simulator.kernel.ledger import Key, Payment
from tests.channels.conftest import CALLBACK_URL, Far


class Merchant:
    """One that has just opened an account at the channel behind `far`."""

    def __init__(self, far: Far) -> None:
        self.far = far
        self.channel = far.far_side.channels[far.driver.channel]
        self.opened = self.channel.open_account("fresh", CALLBACK_URL)
        self.is_told(self.opened)

    def is_told(self, opened: Opened) -> None:
        """What the channel hands out is what both sides use from now on."""
        self.far.far_side.accounts[opened.account.merchant_id] = opened.account
        credentials: dict[str, Any] = opened.credentials
        name = self.far.driver.channel
        address = self.far.far_side.urls[name]  # with no middleman, for a callback may name it
        config = AccountConfig(name="main", channel=name, base_url=address, credentials=credentials)
        self.far.adapter = open_channel(config, self.far.transport)
        self.far.account = opened.account

    async def buy(self, number: str) -> Payment:
        row = self.far.driver.payment(number)
        await self.far.create(row)
        key = Key(self.opened.account.merchant_id, number)
        self.far.far_side.open(key)
        self.far.far_side.pay(key)
        if self.far.driver.needs_capture:
            await self.far.adapter.capture_payment(self.far.row)
        assert isinstance(await self.far.query(), Paid)
        (paid,) = [one for one in self.far.payments() if one.key == key]
        return paid

    @property
    def account(self) -> Account:
        """As the channel knows it now."""
        return self.far.far_side.accounts[self.opened.account.merchant_id]

    def rotate(self) -> None:
        self.is_told(self.channel.rotated(self.account))

    def message(self, paid: Payment, account: Account | None = None) -> Message:
        """What the channel calls back about it, signed with the account's first key."""
        far_side = self.far.far_side
        pay_url = far_side.pay_url(paid)
        message = self.channel.callback(far_side.paid_event(paid), account or self.account, datetime.now(UTC), pay_url)
        assert message is not None
        return message

    async def verify(self, message: Message) -> Callback:
        return await self.far.adapter.verify_callback(message.headers, message.body, received_at=datetime.now(UTC))


@pytest_asyncio.fixture(loop_scope="session")
async def merchant(far: Far) -> AsyncIterator[Merchant]:
    found = Merchant(far)
    yield found
    del far.far_side.accounts[found.opened.account.merchant_id]


async def test_an_account_that_was_just_opened_is_paid_and_called_back(merchant: Merchant) -> None:
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60001")
    assert isinstance((await merchant.verify(merchant.message(paid))).evidence, Paid)


async def test_what_was_signed_before_and_after_a_rotation_verifies(merchant: Merchant) -> None:
    """A callback signed with the old key may be under way for a day."""
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60002")
    before = merchant.message(paid)
    merchant.rotate()
    await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60003")
    after = merchant.message(paid)
    assert before != after
    told = await merchant.verify(before)
    assert isinstance(told.evidence, Paid)
    assert told == await merchant.verify(after)


async def test_a_second_rotation_is_as_good_as_the_first(merchant: Merchant) -> None:
    merchant.rotate()
    merchant.rotate()
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60004")
    assert isinstance((await merchant.verify(merchant.message(paid))).evidence, Paid)


async def test_what_a_stranger_signs_does_not_verify(merchant: Merchant) -> None:
    """The forged callbacks of a load test must be forged."""
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60005")
    message = merchant.message(paid, merchant.channel.stranger(merchant.account))
    for forged in (message, merchant.channel.altered(merchant.message(paid))):
        with pytest.raises(CallbackForged):
            await merchant.verify(forged)
