"""Accounts opened at the simulated channels work, also while their keys are rotated."""

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
from tests.channels.conftest import CALLBACK_URL, Env


class Merchant:
    """A merchant with a new account at the channel of `env`."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.channel = env.far_side.channels[env.driver.channel]
        self.opened = self.channel.open_account("fresh", CALLBACK_URL)
        self.is_told(self.opened)

    def is_told(self, opened: Opened) -> None:
        """Use the credentials that the channel issued on both sides from now on."""
        self.env.far_side.accounts[opened.account.merchant_id] = opened.account
        credentials: dict[str, Any] = opened.credentials
        name = self.env.driver.channel
        address = self.env.far_side.urls[name]  # with no middleman, for a callback may name it
        config = AccountConfig(name="main", channel=name, base_url=address, credentials=credentials)
        self.env.adapter = open_channel(config, self.env.transport)
        self.env.account = opened.account

    async def buy(self, number: str) -> Payment:
        row = self.env.driver.payment(number)
        await self.env.create(row)
        key = Key(self.opened.account.merchant_id, number)
        self.env.far_side.open(key)
        self.env.far_side.pay(key)
        if self.env.driver.needs_capture:
            await self.env.adapter.capture_payment(self.env.row)
        assert isinstance(await self.env.query(), Paid)
        (paid,) = [one for one in self.env.payments() if one.key == key]
        return paid

    @property
    def account(self) -> Account:
        """The account in the channel's current state."""
        return self.env.far_side.accounts[self.opened.account.merchant_id]

    def rotate(self) -> None:
        self.is_told(self.channel.rotated(self.account))

    def message(self, paid: Payment, account: Account | None = None) -> Message:
        """The channel's callback, signed with the account's first key."""
        far_side = self.env.far_side
        pay_url = far_side.pay_url(paid)
        message = self.channel.callback(far_side.paid_event(paid), account or self.account, datetime.now(UTC), pay_url)
        assert message is not None
        return message

    async def verify(self, message: Message) -> Callback:
        return await self.env.adapter.verify_callback(message.headers, message.body, received_at=datetime.now(UTC))


@pytest_asyncio.fixture(loop_scope="session")
async def merchant(env: Env) -> AsyncIterator[Merchant]:
    found = Merchant(env)
    yield found
    del env.far_side.accounts[found.opened.account.merchant_id]


async def test_a_new_account_takes_payments_and_callbacks(merchant: Merchant) -> None:
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60001")
    assert isinstance((await merchant.verify(merchant.message(paid))).evidence, Paid)


async def test_callbacks_signed_before_and_after_a_rotation_verify(merchant: Merchant) -> None:
    """A callback signed with the old key may arrive a day later."""
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60002")
    before = merchant.message(paid)
    merchant.rotate()
    await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60003")
    after = merchant.message(paid)
    assert before != after
    verified = await merchant.verify(before)
    assert isinstance(verified.evidence, Paid)
    assert verified == await merchant.verify(after)


async def test_a_second_rotation_works_like_the_first(merchant: Merchant) -> None:
    merchant.rotate()
    merchant.rotate()
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60004")
    assert isinstance((await merchant.verify(merchant.message(paid))).evidence, Paid)


async def test_a_foreign_signature_does_not_verify(merchant: Merchant) -> None:
    """The forged callbacks of a load test must be forged."""
    paid = await merchant.buy("0190a7c3d1f2a1b2c3d4e5f60005")
    message = merchant.message(paid, merchant.channel.stranger(merchant.account))
    for forged in (message, merchant.channel.altered(merchant.message(paid))):
        with pytest.raises(CallbackForged):
            await merchant.verify(forged)
