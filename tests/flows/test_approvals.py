"""Refunds above the limit: a second operator agrees or does not, once, and in time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace as with_fields

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.errors import InvalidRequest, NotFound, NotPossible, RefundConflict
from core.order import RefundStatus
from flows import refund_request
from flows.refund_request import (
    RequestedRefund,
    approve_refund,
    decline_refund,
    preview_approval,
    preview_refund,
    request_refund,
)
from storage.postgres.refund_approvals import Approval, approvals_of, list_approvals, set_refund
from tests.channels.sandbox.driver import SandboxDriver
from tests.flows.conftest import FlowHarness
from tests.flows.test_partial_refunds import Sale


@pytest_asyncio.fixture(loop_scope="session")
async def sale(harness: FlowHarness) -> AsyncIterator[Sale]:
    """A paid order of 88.88 CNY, of which one operator gives back 20 CNY at most."""
    settings = replace(harness.resources.settings, ops_refund_alone_max="20 CNY")
    harness.resources = with_fields(harness.resources, settings=settings)
    sale = Sale(harness, SandboxDriver())
    await sale.open()
    yield sale
    await harness.simulation.sender.stop()


async def ask(sale: Sale, amount: int | None = 5000, key: str = "ticket-77", by: str = "ann") -> RequestedRefund:
    wish = await sale.wish(amount, key)
    return await request_refund(sale.harness.resources, wish, by=by, reason="one cup was broken")


async def waiting(sale: Sale, **more: str) -> Approval:
    requested = await ask(sale, **more)  # type: ignore[arg-type]  # texts only
    assert requested.approval is not None
    assert requested.refund is None
    return requested.approval


async def make_old(sale: Sale) -> None:
    """Have the time of the approvals be over. No statement of ours moves it: a trigger refuses that."""
    db = sale.harness.resources.db
    await db.execute("ALTER TABLE refund_approvals DISABLE TRIGGER guard_refund_approval")
    await db.execute("UPDATE refund_approvals SET expires_at = now() - interval '1 s'")
    await db.execute("ALTER TABLE refund_approvals ENABLE TRIGGER guard_refund_approval")


async def test_above_the_limit_nothing_goes_back_until_another_operator_agrees(sale: Sale) -> None:
    resources = sale.harness.resources
    approval = await waiting(sale)
    assert (approval.amount, approval.requested_by, approval.reason) == (5000, "ann", "one cup was broken")
    assert (await sale.state()).refunds == ()
    assert [row.id for row in await list_approvals(resources.db)] == [approval.id]
    preview = await preview_approval(resources, approval.id, by="bob")
    assert [line.key for line in preview.lines][:2] == ["approval.asked_by", "refund.gives_back"]

    approved = await approve_refund(resources, approval.id, by="bob", reason="seen the picture")

    assert approved.refund is not None
    assert approved.approval is not None
    assert (approved.approval.decision, approved.approval.decided_by) == ("approved", "bob")
    assert approved.approval.refund_no == approved.refund.refund_no
    assert (approved.refund.note, approved.refund.request_key) == ("one cup was broken", "ticket-77")
    await sale.run_refunds()
    assert (await sale.refunded_there(), (await sale.state()).refunds[0].status) == (5000, RefundStatus.SUCCEEDED)
    assert await list_approvals(resources.db) == []
    sql = "SELECT note FROM order_events WHERE kind = 'refund_requested'"
    assert await sale.harness.fetch_value(sql) == f"{approved.refund.refund_no} by ann, approved by bob"


async def test_nobody_approves_what_they_have_asked_for(sale: Sale) -> None:
    resources, approval = sale.harness.resources, await waiting(sale)
    for decide in (
        approve_refund(resources, approval.id, by="ann"),
        decline_refund(resources, approval.id, by="ann", reason="x"),
    ):
        with pytest.raises(NotPossible, match="Somebody else"):
            await decide
    preview = await preview_approval(resources, approval.id, by="ann")
    assert preview.refusal is not None
    assert preview.refusal.key == "approval.own"
    assert (await sale.state()).refunds == ()


async def test_of_two_who_decide_at_once_one_does_and_the_other_is_told(sale: Sale) -> None:
    resources, approval = sale.harness.resources, await waiting(sale)
    results = await asyncio.gather(
        approve_refund(resources, approval.id, by="bob"),
        decline_refund(resources, approval.id, by="cleo", reason="the cup was fine"),
        return_exceptions=True,
    )
    [error] = [each for each in results if isinstance(each, BaseException)]
    assert isinstance(error, NotPossible)
    assert error.line.key == "approval.decided"
    [row] = await approvals_of(resources.db, sale.order_no)
    assert len((await sale.state()).refunds) == (row.decision == "approved")


async def test_what_was_declined_is_not_refunded_and_its_key_asks_for_nothing_more(sale: Sale) -> None:
    resources, approval = sale.harness.resources, await waiting(sale)
    declined = await decline_refund(resources, approval.id, by="bob", reason="the cup was fine")
    assert (declined.decision, declined.decided_reason) == ("declined", "the cup was fine")
    with pytest.raises(NotPossible, match="bob has decided already: declined"):
        await approve_refund(resources, approval.id, by="cleo")
    with pytest.raises(NotPossible, match="bob has declined"):
        await ask(sale)
    assert (await waiting(sale, key="ticket-78")).id != approval.id
    with pytest.raises(InvalidRequest, match="reason"):
        await decline_refund(resources, approval.id, by="bob", reason="")


async def test_what_nobody_approves_in_time_expires(sale: Sale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refund_request, "APPROVAL_HOURS", 0)
    resources = sale.harness.resources
    with pytest.raises(NotPossible, match="in time"):
        await ask(sale)
    [approval] = await approvals_of(resources.db, sale.order_no)
    assert approval.is_expired
    assert await list_approvals(resources.db) == []
    with pytest.raises(NotPossible, match="in time"):
        await approve_refund(resources, approval.id, by="bob")


async def test_asking_twice_is_one_approval_and_other_terms_are_a_conflict(sale: Sale) -> None:
    approvals = await asyncio.gather(*(waiting(sale) for _ in range(4)))
    assert len({approval.id for approval in approvals}) == 1
    with pytest.raises(RefundConflict):
        await ask(sale, amount=5001)
    unkeyed = await asyncio.gather(*(ask(sale, None, "") for _ in range(2)))
    assert len({requested.approval.id for requested in unkeyed if requested.approval is not None}) == 1


async def test_an_approval_that_was_cut_off_is_ended_by_doing_it_again(
    sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has died after the decision, or after the refund was requested: it is one refund all the same."""
    resources, approval = sale.harness.resources, await waiting(sale)

    async def cut(*_: object, **__: object) -> None:
        raise TimeoutError

    for broken in ("commit_decision", "set_refund"):
        monkeypatch.setattr(refund_request, broken, cut)
        with pytest.raises(TimeoutError):
            await approve_refund(resources, approval.id, by="bob")
        monkeypatch.undo()
        assert [row.decision for row in await list_approvals(resources.db)] == ["approved"]
    ended = await approve_refund(resources, approval.id, by="cleo")
    assert ended.refund is not None
    assert ended.approval is not None
    assert (ended.approval.decided_by, ended.approval.refund_no) == ("bob", ended.refund.refund_no)
    assert len((await sale.state()).refunds) == 1
    await set_refund(resources.db, approval.id, "another")
    assert (await approvals_of(resources.db, sale.order_no))[0].refund_no == ended.refund.refund_no


async def test_money_that_is_gone_meanwhile_is_not_refunded(sale: Sale) -> None:
    resources, approval = sale.harness.resources, await waiting(sale)
    payment = (await sale.state()).payments[0]
    sql = "UPDATE payments SET refunded_amount = 8000 WHERE out_trade_no = $1"
    await resources.db.execute(sql, payment.out_trade_no)
    with pytest.raises(NotPossible, match="So much is not left"):
        await approve_refund(resources, approval.id, by="bob")
    assert (await sale.state()).refunds == ()


async def test_an_approval_that_was_refused_as_things_stand_is_no_standing_one(sale: Sale) -> None:
    """The second operator was told that nothing is done; so the first one cannot end it alone later."""
    resources, approval = sale.harness.resources, await waiting(sale)
    sql = "UPDATE payments SET refunded_amount = $1"
    await resources.db.execute(sql, 8000)
    with pytest.raises(NotPossible, match="So much is not left"):
        await approve_refund(resources, approval.id, by="bob")
    await resources.db.execute(sql, 0)
    with pytest.raises(NotPossible, match="Somebody else has to decide"):
        await approve_refund(resources, approval.id, by="ann")
    assert (await sale.state()).refunds == ()
    assert (await approve_refund(resources, approval.id, by="bob")).refund is not None


async def test_an_approval_that_was_cut_off_is_not_ended_after_its_time(
    sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources, approval = sale.harness.resources, await waiting(sale)

    async def cut(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(refund_request, "commit_decision", cut)
    with pytest.raises(TimeoutError):
        await approve_refund(resources, approval.id, by="bob")
    monkeypatch.undo()
    await make_old(sale)
    with pytest.raises(NotPossible, match="in time"):
        await approve_refund(resources, approval.id, by="ann")
    assert (await sale.state()).refunds == ()
    assert await list_approvals(resources.db) == []


async def test_a_refund_of_an_approval_is_noted_with_it_also_after_its_time(
    sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources, approval = sale.harness.resources, await waiting(sale)

    async def cut(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(refund_request, "set_refund", cut)
    with pytest.raises(TimeoutError):
        await approve_refund(resources, approval.id, by="bob")
    monkeypatch.undo()
    await make_old(sale)
    ended = await approve_refund(resources, approval.id, by="cleo")
    assert ended.refund is not None
    assert len((await sale.state()).refunds) == 1


async def test_small_refunds_add_up_to_the_limit(sale: Sale) -> None:
    assert (await ask(sale, 1500, "one")).refund is not None
    assert (await ask(sale, 500, "two")).refund is not None
    assert (await ask(sale, 1, "three")).approval is not None
    preview = await preview_refund(sale.harness.resources, await sale.wish(1, "four"))
    assert preview.lines[-1].key == "refund.waits"


async def test_an_approval_that_is_not_there_is_not_found(sale: Sale) -> None:
    with pytest.raises(NotFound):
        await approve_refund(sale.harness.resources, 1, by="bob")
    with pytest.raises(NotFound):
        await preview_approval(sale.harness.resources, 1, by="bob")


async def test_pages_of_approvals_end_where_the_next_begins(sale: Sale) -> None:
    ids = [(await waiting(sale, key=f"k-{nth}")).id for nth in range(3)]
    db = sale.harness.resources.db
    first = [row.id for row in await list_approvals(db, limit=2)]
    assert first == ids[:0:-1]
    assert [row.id for row in await list_approvals(db, before=first[-1], limit=2)] == ids[:1]
    await decline_refund(sale.harness.resources, ids[0], by="bob", reason="no")
    assert [row.id for row in await list_approvals(db)] == ids[:0:-1]
    assert [row.id for row in await list_approvals(db, open_only=False)] == ids[::-1]


async def test_who_is_not_known_neither_asks_nor_decides(sale: Sale) -> None:
    """A key of nobody, and a name on the command line without its password."""
    resources, reason = sale.harness.resources, "one cup was broken"
    large, small = await sale.wish(5000, "ticket-77"), await sale.wish(1000, "ticket-78")
    with pytest.raises(NotPossible, match="has to know who asks"):
        await request_refund(resources, large, by="ann", reason=reason, is_proven=False)
    assert await list_approvals(resources.db) == []
    approval = await waiting(sale)
    for decision in (
        approve_refund(resources, approval.id, by="bob", is_proven=False),
        decline_refund(resources, approval.id, by="bob", reason="no", is_proven=False),
    ):
        with pytest.raises(NotPossible, match="has to know who asks"):
            await decision
    preview = await preview_approval(resources, approval.id, by="bob", is_proven=False)
    assert preview.refusal is not None
    assert preview.refusal.key == "approval.needs_person"
    below = await request_refund(resources, small, by="ann", reason=reason, is_proven=False)
    assert below.refund is not None, "below the limit nobody has to be known"


async def test_nobody_agrees_to_what_a_key_of_nobody_has_asked_for(sale: Sale) -> None:
    """By an earlier release."""
    approval = await waiting(sale, by="key_0123456789ab")
    with pytest.raises(NotPossible, match="has to know who asks"):
        await approve_refund(sale.harness.resources, approval.id, by="bob")
