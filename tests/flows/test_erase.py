"""Export and erasure of one order: everything that is stored about it, and nothing personal afterwards."""

from typing import Any

import msgspec
import pytest

from core.checkout import Payer
from core.errors import InvalidRequest, NotFound
from core.order import OrderState, OrderStatus
from core.settings import Settings
from flows.close import request_close
from flows.erase import erase_order
from flows.retention import delete_old
from runtime.resources import Resources
from storage.postgres import personal_data
from storage.postgres.database import Database
from storage.postgres.personal_data import TABLES, Erased, export_order, find_open_deliveries
from tests.flows.conftest import HOOK, FlowHarness

CANARY = "canary"
TERMS: dict[str, Any] = {
    "subject": f"{CANARY} subject",
    "metadata": {"note": f"{CANARY} metadata"},
    "return_url": f"https://shop.test/{CANARY}",
    "notify_url": HOOK,
}


async def columns_with(db: Database, text: str) -> set[str]:
    """`table.column` of every value in the database that holds the text."""
    found = set()
    columns = await db.fetch(
        """SELECT table_name AS t, column_name AS c, data_type AS type FROM information_schema.columns
            WHERE table_schema = 'public' AND table_name !~ '^observations_'"""
    )
    for column in columns:
        value = f"encode({column['c']}, 'escape')" if column["type"] == "bytea" else f"{column['c']}::text"
        sql = f"SELECT count(*) FROM {column['t']} WHERE {value} LIKE '%' || $1 || '%'"  # noqa: S608 - the catalog's
        if await db.fetchval(sql, text):
            found.add(f"{column['t']}.{column['c']}")
    return found


async def paid_order(harness: FlowHarness, **more: Any) -> OrderState:
    """Paid by a callback, whose merchant was told."""
    state = await harness.placed_order(**TERMS | more)
    harness.pay(state.payments[0])
    transaction = harness.transaction_of(state.payments[0])
    await harness.receive("main", harness.callback(state.payments[0], transaction=transaction))
    await deliver(harness)
    return await harness.state(state)


async def deliver(harness: FlowHarness) -> None:
    await harness.resources.db.execute("UPDATE notifications SET delivered_at = now() WHERE delivered_at IS NULL")


async def erase(harness: FlowHarness, state: OrderState, *, dead_letters: bool = False) -> Erased:
    erased = await erase_order(harness.resources, state.order.order_no, by="kim", dead_letters=dead_letters)
    return erased.rows


async def test_nothing_personal_is_left(harness: FlowHarness) -> None:
    state = await paid_order(harness)
    db = harness.resources.db
    await db.execute(
        """INSERT INTO cases (order_no, reason, resolved_at, resolution, by)
           VALUES ($1, 'paid_late', now(), 'canary said so', 'kim')""",
        state.order.order_no,
    )
    before = await columns_with(db, CANARY)
    assert before == {
        "orders.subject",
        "orders.metadata",
        "orders.return_url",
        "notifications.body",
        "cases.resolution",
    }
    assert await erase(harness, state) == Erased(callbacks=1, notifications=1, cases=1)
    assert await columns_with(db, CANARY) == set()
    [callback] = (await export_order(db, harness.sealer, state.order.order_no))["callbacks"]
    assert (callback["body"], callback["headers"]) == ("", {})


async def test_amounts_numbers_and_history_stay(harness: FlowHarness) -> None:
    before = await paid_order(harness)
    await erase(harness, before)
    after = await harness.state(before)
    assert after.order.status is OrderStatus.PAID
    assert (after.order.amount, after.order.paid_by, after.order.paid_at) == (
        before.order.amount,
        before.order.paid_by,
        before.order.paid_at,
    )
    assert after.payments[0].channel_transaction_id == before.payments[0].channel_transaction_id
    events = await harness.resources.db.fetch("SELECT kind, by, note FROM order_events ORDER BY version")
    assert [event["kind"] for event in events][-2:] == ["paid", "erased"]
    assert (events[-1]["by"], events[-1]["note"]) == ("operator", "by kim")


async def test_a_second_time_changes_nothing_more(harness: FlowHarness) -> None:
    state = await paid_order(harness)
    await erase(harness, state)
    version = (await harness.state(state)).order.version
    assert await erase(harness, state) == Erased(callbacks=0, notifications=0, cases=0)
    assert (await harness.state(state)).order.version == version


async def test_an_open_payment_or_delivery_refuses_it(harness: FlowHarness) -> None:
    state = await harness.placed_order(**TERMS)
    with pytest.raises(
        InvalidRequest, match=r"the order is paying: it must be paid or closed first; payment \w+ is open"
    ):
        await erase(harness, state)
    paid = await paid_order(harness)
    await harness.resources.db.execute("UPDATE notifications SET delivered_at = NULL")
    with pytest.raises(InvalidRequest, match="1 notifications are not delivered yet"):
        await erase(harness, paid)
    await deliver(harness)
    await harness.resources.db.execute("UPDATE callbacks SET handled_at = NULL")
    with pytest.raises(InvalidRequest, match="1 callbacks about it are not handled yet"):
        await erase(harness, paid)
    assert (await harness.state(paid)).order.subject == TERMS["subject"]
    with pytest.raises(NotFound):
        await erase_order(harness.resources, "nobody", by="kim", dead_letters=False)


async def test_a_closed_payment_that_is_still_queried_refuses_it(harness: FlowHarness) -> None:
    state = await harness.placed_order(**TERMS | {"notify_url": None})
    await request_close(harness.resources, state.order.order_no)
    with pytest.raises(InvalidRequest, match="is still queried"):
        await erase(harness, state)


async def test_dead_letters_are_given_up_only_when_that_is_asked(harness: FlowHarness) -> None:
    state = await paid_order(harness)
    db = harness.resources.db
    await db.execute("UPDATE notifications SET delivered_at = NULL, dead_at = now()")
    with pytest.raises(InvalidRequest, match="never delivered"):
        await erase(harness, state)
    assert await erase(harness, state, dead_letters=True) == Erased(callbacks=1, notifications=1, cases=0)
    assert (await find_open_deliveries(db, state.order.order_no)).dead_letters == 0


async def test_a_callback_under_another_id_of_the_payment_is_found(harness: FlowHarness) -> None:
    state = await paid_order(harness)
    transaction = state.payments[0].channel_transaction_id
    db = harness.resources.db
    await db.execute("UPDATE callbacks SET out_trade_no = $1", transaction)
    assert len((await export_order(db, harness.sealer, state.order.order_no))["callbacks"]) == 1
    await db.execute(
        """UPDATE callbacks
              SET out_trade_no = '', evidence = evidence || jsonb_build_object('ids', jsonb_build_array($1::text))""",
        transaction,
    )
    assert len((await export_order(db, harness.sealer, state.order.order_no))["callbacks"]) == 1
    await db.execute('UPDATE callbacks SET evidence = evidence || \'{"ids": ["another"]}\'')
    assert (await export_order(db, harness.sealer, state.order.order_no))["callbacks"] == []


async def test_callbacks_of_an_order_are_found_by_key(harness: FlowHarness) -> None:
    """Among thousands of others."""
    await paid_order(harness)
    db = harness.resources.db
    await db.execute(
        """INSERT INTO callbacks SELECT (jsonb_populate_record(c, jsonb_build_object(
               'id', gen_random_uuid(), 'notification_id', n::text, 'out_trade_no', n::text))).*
             FROM callbacks c, generate_series(1, 5000) AS n"""
    )
    await db.execute("ANALYZE callbacks")
    for statement in (personal_data._CALLBACKS, personal_data._OPEN, personal_data._ERASE.replace("$2", "false")):
        plan = [row[0] for row in await db.fetch("EXPLAIN " + statement.replace("$1", "'F-1'"))]
        assert not any("Seq Scan on callbacks" in line for line in plan), plan


async def test_the_export_holds_every_table_that_names_an_order(harness: FlowHarness) -> None:
    state = await paid_order(harness)
    # `alert_walk` is one row, the place of a walk along all orders.
    tables = await harness.resources.db.fetch(
        """SELECT DISTINCT table_name FROM information_schema.columns
            WHERE table_schema = 'public' AND column_name = 'order_no'
              AND table_name !~ '^observations_' AND table_name <> 'alert_walk'"""
    )
    assert {row["table_name"] for row in tables} == set(TABLES)
    exported = await export_order(harness.resources.db, harness.sealer, state.order.order_no)
    assert set(exported) == {*TABLES, "callbacks"}
    assert exported["orders"][0]["metadata"] == TERMS["metadata"]
    [notification] = exported["notifications"]
    assert msgspec.json.decode(notification["body"])["data"]["metadata"] == TERMS["metadata"]
    [callback] = exported["callbacks"]
    assert msgspec.json.decode(callback["body"])["payment"]["out_trade_no"] == state.payments[0].out_trade_no
    assert set(callback["headers"]) == {"sandbox-callback-id", "sandbox-signature"}


async def test_an_order_is_erased_while_another_keeps_its_texts(harness: FlowHarness) -> None:
    one, other = await paid_order(harness), await paid_order(harness)
    await erase(harness, one)
    exported = await export_order(harness.resources.db, harness.sealer, other.order.order_no)
    assert exported["orders"][0]["subject"] == TERMS["subject"]
    assert exported["callbacks"][0]["body"]


async def test_one_turn_of_the_retention_deletes_what_the_settings_say(
    harness: FlowHarness, settings: Settings, resources: Resources
) -> None:
    await paid_order(harness)
    db = resources.db
    await db.execute("UPDATE callbacks SET handled_at = now() - interval '181 days'")
    await db.execute("UPDATE notifications SET delivered_at = now() - interval '91 days'")
    await db.execute(
        "INSERT INTO audit (at, by, via, action)"
        " SELECT now() - days * interval '1 day', 'x', 'api', 'order.close' FROM unnest('{2558, 2556}'::int[]) days"
    )
    assert settings.audit_keep_days == 2557
    assert (settings.callbacks_keep_days, settings.notifications_keep_days, settings.cases_keep_days) == (180, 90, 365)
    assert await delete_old(resources) is False
    assert await db.fetchval("SELECT (SELECT count(*) FROM callbacks) + (SELECT count(*) FROM notifications)") == 0
    assert await db.fetchval("SELECT count(*) FROM audit") == 1


async def leave_payer(harness: FlowHarness, state: OrderState, *, ends_in_s: int) -> None:
    """As a process of the release before: its statement does not know the column."""
    await harness.resources.db.execute(
        """UPDATE orders SET payer = '{"openid": "o-canary"}', version = version + 1,
                             expires_at = now() + make_interval(secs => $2) WHERE order_no = $1""",
        state.order.order_no,
        ends_in_s,
    )


async def test_the_retention_erases_a_payer_that_an_older_process_has_left(harness: FlowHarness) -> None:
    left, still_open, early = await paid_order(harness), await harness.placed_order(**TERMS), await paid_order(harness)
    for state, ends_in_s in ((left, -1), (still_open, -1), (early, 60)):
        await leave_payer(harness, state, ends_in_s=ends_in_s)
    assert await delete_old(harness.resources) is False
    payers = [(await harness.state(state)).order.payer for state in (left, still_open, early)]
    assert payers == [None, Payer(openid="o-canary"), Payer(openid="o-canary")]
    after = (await harness.state(left)).order
    assert (after.status, after.version) == (OrderStatus.PAID, left.order.version + 2)
    events = await harness.resources.db.fetch(
        "SELECT kind, by, note FROM order_events WHERE order_no = $1 ORDER BY version", left.order.order_no
    )
    assert tuple(events[-1].values()) == ("erased", "sweep", "payer")
    await delete_old(harness.resources)
    assert (await harness.state(left)).order.version == after.version


async def test_payers_that_fill_a_batch_are_gone_on_with_at_once(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_payer(harness, await paid_order(harness), ends_in_s=-1)
    monkeypatch.setattr("storage.postgres.retention.PAYERS_BATCH", 1)
    assert await delete_old(harness.resources) is True
    assert await delete_old(harness.resources) is False
