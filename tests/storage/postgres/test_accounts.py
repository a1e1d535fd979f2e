"""Accounts are sealed as one value; nothing of their credentials is ever stored in the clear."""

import asyncpg
import pytest
from msgspec.structs import replace

from core.account import AccountConfig
from core.errors import ConfigurationError
from storage.postgres.accounts import (
    enable_account,
    get_accounts,
    list_accounts,
    put_account,
    reseal_accounts,
)
from storage.postgres.database import Database
from storage.sealing import Sealer, new_master_key
from tests.storage.postgres.tools import rows

OLD = new_master_key("old")
SEALER = Sealer.from_setting(OLD)
ACCOUNT = AccountConfig(
    name="alipay", channel="alipay", base_url="https://openapi.test", credentials={"key": "s3cret"}, rate_per_s=7
)


async def test_an_account_comes_back_as_it_was_put(db: Database) -> None:
    assert await put_account(db, SEALER, ACCOUNT)
    assert await get_accounts(db, SEALER) == [ACCOUNT]


async def test_nothing_of_it_is_stored_in_the_clear(db: Database) -> None:
    await put_account(db, SEALER, ACCOUNT)
    [row] = await rows(db, "accounts")
    assert not [
        value for value in row.values() if b"s3cret" in str(value).encode() or b"openapi" in str(value).encode()
    ]
    assert b"s3cret" not in row["sealed"]
    [shown] = await list_accounts(db)
    assert (shown.name, shown.channel, shown.enabled) == ("alipay", "alipay", True)


async def test_an_account_put_again_is_replaced_and_switched_on(db: Database) -> None:
    await put_account(db, SEALER, ACCOUNT)
    await enable_account(db, "alipay", enabled=False)
    assert not await put_account(db, SEALER, replace(ACCOUNT, rate_per_s=9))
    assert await get_accounts(db, SEALER) == [replace(ACCOUNT, rate_per_s=9)]


async def test_an_account_that_is_switched_off_is_still_there_to_be_asked(db: Database) -> None:
    """Its payments are under way: they have to become definite."""
    await put_account(db, SEALER, ACCOUNT)
    assert await enable_account(db, "alipay", enabled=False)
    assert await get_accounts(db, SEALER) == [replace(ACCOUNT, enabled=False)]
    assert [shown.enabled for shown in await list_accounts(db)] == [False]
    assert await enable_account(db, "alipay", enabled=True)
    assert await get_accounts(db, SEALER) == [ACCOUNT]
    assert not await enable_account(db, "wechat", enabled=True)


async def test_accounts_survive_a_change_of_keys(db: Database) -> None:
    new = new_master_key("new")
    await put_account(db, SEALER, ACCOUNT)
    both = Sealer.from_setting(f"{new},{OLD}")
    assert await reseal_accounts(db, both) == ["alipay"]
    assert await get_accounts(db, Sealer.from_setting(new)) == [ACCOUNT]
    with pytest.raises(ConfigurationError, match=r"^NODROP_MASTER_KEYS lacks the key that sealed account alipay$"):
        await get_accounts(db, SEALER)


async def test_credentials_copied_to_another_account_do_not_open(db: Database) -> None:
    """A writer of the table cannot make one account use the keys of another."""
    await put_account(db, SEALER, ACCOUNT)
    await put_account(db, SEALER, replace(ACCOUNT, name="other"))
    await db.execute(
        "UPDATE accounts SET sealed = (SELECT sealed FROM accounts WHERE name = 'other') WHERE name = 'alipay'"
    )
    with pytest.raises(ConfigurationError, match=r"^what was sealed for account alipay does not open"):
        await get_accounts(db, SEALER)


@pytest.mark.parametrize("name", ["", "Alipay", "1a", "a_b", "a:b", "a" * 41])
async def test_a_name_that_is_no_name_is_refused(db: Database, name: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await put_account(db, SEALER, replace(ACCOUNT, name=name))
