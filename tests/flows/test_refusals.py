"""Refused callbacks are written beside the requests, and each callback that came is explained by its bytes."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import CallbackForged, CallbackRejected, DatabaseUnavailable, UnknownAccount
from core.order import OrderState
from core.refusals import NO_ACCOUNT, Verdict
from core.story import story_of
from flows import refusals
from flows.callback_explanation import ExplainedCallback, explain_received
from flows.parked import drain_parked
from flows.refusals import write_refusals
from flows.retention import delete_old
from runtime.accounts import RELOAD_S
from storage.postgres.accounts import put_account
from storage.postgres.callback_history import (
    CallbackRow,
    CallbackState,
    callbacks_of_order,
    find_callback,
    list_callbacks,
)
from storage.postgres.order_facts import find_facts
from storage.postgres.personal_data import erase_rows, export_order
from storage.postgres.refused_callbacks import find_refused_counts
from storage.postgres.search import find_by_number
from storage.redis.parked_callbacks import ParkedCallback
from tests.channels.reports import CallbackRequest, Key
from tests.flows.conftest import FlowHarness

NETWORK = "203.0.113.0/24"


async def refuse(harness: FlowHarness, callback: CallbackRequest, account: str = "main") -> None:
    """Receive it, and note and write its refusal, as a web process does."""
    try:
        await harness.receive(account, callback)
    except (CallbackRejected, UnknownAccount) as error:
        harness.resources.refusals.note(account, error, callback.headers, callback.body, "203.0.113.9")
    else:
        pytest.fail("it was taken")
    await write_refusals(harness.resources)


async def of_order(harness: FlowHarness, state: OrderState) -> list[CallbackRow]:
    return await callbacks_of_order(harness.resources.db, state.order.order_no)


async def explained(harness: FlowHarness, state: OrderState) -> ExplainedCallback:
    """Of the order's only callback."""
    [row] = await of_order(harness, state)
    return await explain_received(harness.resources, row)


async def counts(harness: FlowHarness) -> dict[tuple[str, Verdict], int]:
    return {(row.account, row.verdict): row.count for row in await find_refused_counts(harness.resources.db)}


async def test_a_refused_callback_is_seen_at_the_order_that_it_claims(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await refuse(harness, harness.callback(state.payments[0], key=Key.STRANGER))
    await refuse(harness, harness.callback(state.payments[0], age_s=3600))
    rows = await of_order(harness, state)
    assert [(row.verdict, row.state, row.out_trade_no, row.network) for row in rows] == [
        ("forged", CallbackState.REFUSED, state.payments[0].out_trade_no, NETWORK),
        ("stale", CallbackState.REFUSED, state.payments[0].out_trade_no, NETWORK),
    ]
    assert (await harness.state(state)).order.version == state.order.version
    facts = await find_facts(harness.resources.db, state.order.order_no)
    assert facts is not None
    refusals = [(entry.text, entry.values["reason"]) for entry in story_of(facts) if entry.refused_id]
    assert refusals == [("callback_refused", "forged"), ("callback_refused", "stale")]
    assert await counts(harness) == {("main", Verdict.FORGED): 1, ("main", Verdict.STALE): 1}
    assert await write_refusals(harness.resources) == 0


async def test_a_sealed_one_is_seen_at_its_order_once_the_same_message_is_genuine(harness: FlowHarness) -> None:
    """WeChat Pay seals what a callback is about, so a refused one names no payment."""
    state, other = await harness.placed_order(), await harness.placed_order()
    genuine = harness.callback(state.payments[0])
    message_id = json.loads(genuine.body)["id"]
    sealed = json.dumps({"id": message_id, "resource": {"ciphertext": "sealed"}}).encode()
    headers = dict(genuine.headers) | {"wechatpay-serial": "7D2A", "wechatpay-timestamp": "1732340000"}
    await refuse(harness, CallbackRequest(headers, sealed))
    db = harness.resources.db
    [row], _ = await list_callbacks(db, state=CallbackState.REFUSED)
    assert (row.order_no, row.notification_id) == (None, message_id)
    assert (row.claimed_serial, row.claimed_at) == ("7D2A", "1732340000")
    assert await of_order(harness, state) == []
    [match] = await find_by_number(db, message_id)
    assert (match.callback_id, match.order_no) == (row.id, None)

    harness.pay(state.payments[0])
    await harness.receive("main", genuine)
    rows = await of_order(harness, state)
    assert [(each.state, each.order_no) for each in rows] == [
        (CallbackState.REFUSED, state.order.order_no),
        (CallbackState.HANDLED, state.order.order_no),
    ]
    known = await find_callback(db, row.id)
    assert known is not None
    assert known.order_no == state.order.order_no
    assert await of_order(harness, other) == []
    facts = await find_facts(db, state.order.order_no)
    assert facts is not None
    assert [entry.text for entry in story_of(facts) if entry.refused_id] == ["callback_refused"]


async def test_an_account_that_does_not_exist_is_noted_by_its_name_alone(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await refuse(harness, harness.callback(state.payments[0]), "mian")
    [row], _ = await list_callbacks(harness.resources.db, state=CallbackState.REFUSED)
    assert (row.account, row.verdict, row.detail, row.order_no) == (NO_ACCOUNT, "unknown_account", "mian", None)
    explanation = (await explain_received(harness.resources, row)).explanation
    assert (explanation.verdict, explanation.reason) == ("rejected", "unknown_account")


async def test_while_postgres_is_away_rows_are_dropped_and_counts_are_kept(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await harness.placed_order()

    async def unavailable(*_: object) -> None:
        raise DatabaseUnavailable

    with monkeypatch.context() as away:
        away.setattr(refusals, "count_refused", unavailable)
        await refuse(harness, harness.callback(state.payments[0], key=Key.STRANGER))
    await write_refusals(harness.resources)
    assert await of_order(harness, state) == []
    assert await counts(harness) == {("main", Verdict.FORGED): 1}


async def test_a_postgres_that_does_not_answer_is_waited_for_a_bounded_time(
    harness: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(refusals, "WRITE_S", 0.0)
    monkeypatch.setattr(refusals, "count_refused", hang)
    harness.resources.refusals.note("main", CallbackForged("signature"), {}, b"one", "")
    assert await write_refusals(harness.resources) == 0
    assert harness.resources.refusals.take().counts.total() == 1


async def test_a_parked_callback_that_does_not_verify_is_noted(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0], key=Key.STRANGER)
    now = harness.resources.clock.now()
    parked = ParkedCallback(account="main", headers=callback.headers, body=callback.body, received_at=now)
    await harness.resources.parked.park(parked)
    assert await drain_parked(harness.resources) == 1
    assert [row.verdict for row in await of_order(harness, state)] == ["forged"]


# -- explained ---------------------------------------------------------------------------------------------------------


async def test_a_genuine_callback_is_explained_by_its_stored_bytes(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await harness.receive("main", harness.callback(state.payments[0]))
    found = await explained(harness, state)
    assert (found.explanation.verdict, found.payment) == ("paid", (await harness.state(state)).payments[0])
    assert [check.is_good for check in found.explanation.checks] == [True]
    document = found.as_json()
    assert (document["order_no"], document["amount_minor"]) == (state.order.order_no, state.order.amount)


async def test_one_of_another_amount_is_explained_as_a_mismatch(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await harness.receive("main", harness.callback(state.payments[0], amount=1))
    found = await explained(harness, state)
    assert (found.explanation.verdict, found.explanation.reason[:15]) == ("mismatch", "amount_mismatch")


async def test_a_forged_one_is_explained_check_by_check_without_a_secret(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await refuse(harness, harness.callback(state.payments[0], key=Key.STRANGER))
    found = await explained(harness, state)
    assert (found.explanation.verdict, found.explanation.reason) == ("rejected", "forged")
    assert [check.is_good for check in found.explanation.checks] == [False]
    assert found.payment is not None
    assert found.payment.order_no == state.order.order_no
    secrets = [str(secret) for secret in harness.driver.account(harness.url).credentials["keys"].values()]
    assert not any(secret in str(found.as_json()) for secret in secrets)


async def test_keys_that_were_changed_since_are_named(harness: FlowHarness) -> None:
    state, other = await harness.placed_order(), await harness.placed_order()
    await harness.receive("main", harness.callback(state.payments[0], key=Key.OLD))
    await put_keys(harness, Key.NEW)
    found = await explained(harness, state)
    assert found.explanation.verdict == "rejected"
    assert found.explanation.notes[-1].key == "does_not_verify_now"
    await refuse(harness, harness.callback(other.payments[0], key=Key.OLD))
    await put_keys(harness, Key.NEW, Key.OLD)
    found = await explained(harness, other)
    assert found.explanation.verdict == "paid"
    assert found.explanation.notes[-1].key == "verifies_now"


async def put_keys(harness: FlowHarness, *keys: Key) -> None:
    """Let the account have these keys, at once."""
    account = harness.driver.account(harness.url, *keys)
    credentials = account.credentials | {"merchant_id": "m-main"}
    await put_account(harness.resources.db, harness.sealer, replace(account, credentials=credentials))
    harness.resources.accounts._read_at = -RELOAD_S


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ("body = NULL, sealed_under = NULL", "not_kept"),
        ("body_bytes = body_bytes + 1", "cut_off"),
        ("body = '\\x6e6f6e65006162'", "sealed"),
    ],
)
async def test_without_its_bytes_a_refused_one_is_explained_by_what_was_noted(
    harness: FlowHarness, change: str, note: str
) -> None:
    state = await harness.placed_order()
    await refuse(harness, harness.callback(state.payments[0], key=Key.STRANGER))
    await harness.resources.db.execute(f"UPDATE refused_callbacks SET {change}")  # noqa: S608 - ours
    explanation = (await explained(harness, state)).explanation
    assert (explanation.verdict, explanation.reason, explanation.checks) == ("rejected", "forged", ())
    assert [each.key for each in explanation.notes] == [note]


async def test_an_erased_callback_is_explained_by_what_it_said(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await harness.receive("main", harness.callback(state.payments[0]))
    await harness.resources.db.execute("UPDATE callbacks SET body = '', sealed_under = NULL")
    explanation = (await explained(harness, state)).explanation
    assert (explanation.verdict, explanation.checks) == ("paid", ())
    assert [each.key for each in explanation.notes] == ["not_kept"]


async def test_one_about_no_payment_of_ours_is_said_to_be_so(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await harness.receive("main", harness.callback(state.payments[0], number="0123456789abcdef"))
    [row], _ = await list_callbacks(harness.resources.db, account="main")
    found = await explain_received(harness.resources, row)
    assert (found.payment, found.explanation.verdict) == (None, "paid")
    assert found.explanation.notes[-1].key == "unknown_number"


# -- the life of the data ----------------------------------------------------------------------------------------------


async def test_a_refused_callback_is_exported_and_erased_with_its_order(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    callback = harness.callback(state.payments[0], key=Key.STRANGER)
    await refuse(harness, callback)

    async def exported() -> list[dict[str, Any]]:
        tables = await export_order(harness.resources.db, harness.sealer, state.order.order_no)
        return tables["refused_callbacks"]

    [row] = await exported()
    assert (row["body"], row["network"]) == (callback.body.decode(), NETWORK)
    erased = await erase_rows(harness.resources.db, state.order.order_no, dead_letters=False)
    assert erased.callbacks == 1
    [row] = await exported()
    assert (row["body"], row["headers"], row["network"]) == (None, {}, "")
    assert (await erase_rows(harness.resources.db, state.order.order_no, dead_letters=False)).callbacks == 0


async def test_an_old_one_is_deleted(harness: FlowHarness) -> None:
    state = await harness.placed_order()
    await refuse(harness, harness.callback(state.payments[0], key=Key.STRANGER))
    assert not await delete_old(harness.resources)
    assert len(await of_order(harness, state)) == 1
    await harness.resources.db.execute("UPDATE refused_callbacks SET received_at = now() - interval '181 days'")
    await delete_old(harness.resources)
    assert await of_order(harness, state) == []
