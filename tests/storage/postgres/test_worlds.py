"""One channel payment pays one order, whatever its account is called: worlds, their transactions, old collisions."""

import asyncio

import pytest

from core.account import AccountConfig
from core.decision import Outcome
from core.errors import TransactionClaimed
from core.order import CaseReason, OrderStatus
from storage.postgres.accounts import put_account, sealed_accounts, set_world
from storage.postgres.collisions import open_collision_cases
from storage.postgres.database import Database
from storage.sealing import Sealer, new_master_key
from tests.storage.postgres.tools import commit_evidence, count, get_state, number, opened, paid, placed, rows, terms_of

WORLD = "alipay live"
SEALER = Sealer.from_setting(new_master_key("test"))


async def add_account(db: Database, name: str, world: str | None = WORLD) -> None:
    await put_account(db, SEALER, AccountConfig(name=name, channel="alipay", credentials={}))
    if world is not None:
        await set_world(db, name, world)


async def pay(db: Database, order_no: str, account: str, transaction: str = "t-1") -> Outcome:
    """Commit money for the order's payment at this account."""
    key = number(order_no, account)
    committed = await commit_evidence(db, order_no, paid(key=key, transaction=transaction), key=key)
    return committed.decision.outcome


async def placed_at(db: Database, order_no: str, account: str) -> None:
    await placed(db, order_no, payment=terms_of(number(order_no, account)))


async def test_a_transaction_pays_one_order_of_all_accounts_in_its_world(db: Database) -> None:
    for order_no, account in (("A-1", "main"), ("A-2", "twin")):
        await add_account(db, account)
        await placed_at(db, order_no, account)
    assert await pay(db, "A-1", "main") is Outcome.PAID
    with pytest.raises(TransactionClaimed):
        await pay(db, "A-2", "twin")
    state = await get_state(db, "A-2")
    assert (state.order.status, state.order.version) == (OrderStatus.PAYING, 1)
    assert await pay(db, "A-2", "twin", "t-2") is Outcome.PAID


@pytest.mark.parametrize("world", ["alipay test", "stripe live", None])
async def test_the_same_number_in_another_world_or_of_an_account_not_opened_yet_is_another(
    db: Database, world: str | None
) -> None:
    await add_account(db, "main")
    await add_account(db, "other", world)
    await placed_at(db, "A-1", "main")
    await placed_at(db, "A-2", "other")
    assert [await pay(db, "A-1", "main"), await pay(db, "A-2", "other")] == [Outcome.PAID, Outcome.PAID]


async def test_two_accounts_that_claim_one_transaction_at_once_are_not_both_paid(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        for order_no, account in (("A-1", "main"), ("A-2", "twin")):
            await add_account(one, account)
            await placed_at(one, order_no, account)
        done = await asyncio.gather(pay(one, "A-1", "main"), pay(two, "A-2", "twin"), return_exceptions=True)
        assert sum(isinstance(error, TransactionClaimed) for error in done) == 1
        assert await count(one, "orders", "status = 'paid'") == 1


async def test_a_world_is_kept_with_its_account(db: Database) -> None:
    await add_account(db, "main", None)
    assert [row.world for row in await sealed_accounts(db)] == [None]
    await set_world(db, "main", WORLD)
    assert [row.world for row in await sealed_accounts(db)] == [WORLD]


async def collide(db: Database) -> None:
    """Two orders paid by one transaction while nobody knew that their accounts are in one world."""
    for order_no, account in (("A-1", "main"), ("A-2", "twin")):
        await add_account(db, account, None)
        await placed_at(db, order_no, account)
        await pay(db, order_no, account)
    await placed_at(db, "A-3", "twin")
    await pay(db, "A-3", "twin", "t-3")


async def test_a_collision_that_exists_is_a_case_about_the_later_payment(db: Database) -> None:
    await collide(db)
    for account in ("twin", "main"):
        await set_world(db, account, WORLD)
    assert await open_collision_cases(db) == 1
    [case] = await rows(db, "cases", "order_no, channel_account, reason, detail")
    assert case == {
        "order_no": "A-2",
        "channel_account": "twin",
        "reason": CaseReason.TRANSACTION_CLAIMED_TWICE,
        "detail": "transaction t-1, which paid order A-1",
    }
    assert [(await get_state(db, order_no)).order.status for order_no in ("A-1", "A-2")] == [OrderStatus.PAID] * 2


@pytest.mark.parametrize("resolved", [False, True])
async def test_a_collision_gets_one_case(db: Database, *, resolved: bool) -> None:
    await collide(db)
    for account in ("main", "twin"):
        await set_world(db, account, WORLD)
    assert await open_collision_cases(db) == 1
    if resolved:
        await db.execute("UPDATE cases SET resolved_at = now()")
    assert await open_collision_cases(db) == 0
    await set_world(db, "main", WORLD)
    assert await open_collision_cases(db) == 0
    assert await count(db, "cases") == 1


async def test_collisions_are_found_whichever_world_is_known_first(db: Database) -> None:
    await collide(db)
    opened_cases = []
    for account in ("twin", "main"):
        await set_world(db, account, WORLD)
        opened_cases.append(await open_collision_cases(db))
    assert opened_cases == [0, 1]


async def test_every_page_of_payments_is_compared(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.postgres.collisions.PAGE", 1)
    await collide(db)
    for account in ("main", "twin"):
        await set_world(db, account, WORLD)
    assert await open_collision_cases(db) == 1
