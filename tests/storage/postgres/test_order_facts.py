"""All that is stored about an order is read, of this order alone."""

from core.order import PaymentKey
from core.order_facts import OrderFacts
from storage.postgres import pending
from storage.postgres.database import Database
from storage.postgres.inbox import insert_callback
from storage.postgres.order_facts import find_facts
from storage.postgres.refund_approvals import decide_approval, insert_approval
from storage.postgres.search import NumberKind, find_by_number
from tests.sealed import SEALER
from tests.storage.postgres.tools import commit_evidence, number, paid, placed, unpaid


async def facts_of(db: Database, order_no: str = "A-1") -> OrderFacts:
    facts = await find_facts(db, order_no)
    assert facts is not None
    return facts


async def test_an_order_that_is_not_there_has_no_facts(db: Database) -> None:
    assert await find_facts(db, "A-1") is None


async def test_everything_of_an_order_and_nothing_of_another_is_read(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
        await insert_callback(
            db,
            SEALER,
            account="alipay",
            notification_id=f"evt-{order_no}",
            headers={},
            body=b"{}",
            evidence=paid(order_no),
            received_at=None,
            due_s=60.0,
            kept_s=60.0,
        )
        await commit_evidence(db, order_no, unpaid(order_no), arm_no=1)
        await commit_evidence(db, order_no, paid(order_no))
        await db.execute("INSERT INTO cases (order_no, reason, detail) VALUES ($1, 'disputed', 'why')", order_no)
    await db.execute("UPDATE cases SET resolved_at = now(), resolution = 'won', by = 'alice' WHERE order_no = 'A-1'")
    facts = await facts_of(db)
    assert [(row.kind, row.version) for row in facts.events] == [("placed", 1), ("unpaid_seen", None), ("paid", 2)]
    assert facts.events[2].evidence is not None
    assert [(row.notification_id, row.says, row.handled_at) for row in facts.callbacks] == [("evt-A-1", "paid", None)]
    assert facts.callbacks[0].key == number("A-1")
    assert [(row.type, row.version, row.is_open) for row in facts.notifications] == [("order.paid", 2, True)]
    assert [(row.reason, row.resolution, row.by) for row in facts.cases] == [("disputed", "won", "alice")]
    assert (facts.leases, facts.refund_work, facts.is_cut) == ({}, {}, False)


async def test_a_lease_is_told_with_its_process_while_it_lasts(db: Database) -> None:
    await placed(db)
    db.process = "w-1"
    assert await pending.claim(db, number("A-1"), 20.0) is not None
    facts = await facts_of(db)
    lease = facts.leases[PaymentKey("alipay", "alipay-A-1")]
    assert (lease.process, lease.until > facts.state.now) == ("w-1", True)
    await db.execute("UPDATE pending SET leased_until = now() - interval '1 s'")
    assert (await facts_of(db)).leases == {}


async def test_a_refund_that_is_not_definite_is_told_with_its_time(db: Database) -> None:
    await placed(db)
    await db.execute(
        """
        SET LOCAL session_replication_role = replica;
        INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,
                             requested_at, settled_at)
        VALUES ('r-1', 'alipay', 'alipay-A-1', 'A-1', 1, 'CNY', 'late', 'processing', now(), NULL),
               ('r-2', 'alipay', 'alipay-A-1', 'A-1', 1, 'CNY', 'late', 'failed', now(), now())"""
    )
    assert list((await facts_of(db)).refund_work) == ["r-1"]


async def test_refunds_that_wait_for_a_second_operator_are_read_of_this_order(db: Database) -> None:
    for order_no in ("A-1", "A-2"):
        await placed(db, order_no)
        await insert_approval(
            db,
            order_no=order_no,
            account="alipay",
            out_trade_no=f"alipay-{order_no}",
            amount=888,
            currency="CNY",
            request_key="k-1",
            reason="broken cup",
            requested_by="anna",
            lives_s=60.0,
        )
    [approval] = (await facts_of(db)).approvals
    assert (approval.key, approval.amount, approval.requested_by) == (number("A-1"), 888, "anna")
    assert (approval.decision, approval.is_expired) == (None, False)
    declined = await decide_approval(db, approval.id, decision="declined", by="ben", reason="the cup was fine")
    assert declined is not None
    [approval] = (await facts_of(db)).approvals
    assert (approval.decided_by, approval.decided_reason, approval.refund_no) == ("ben", "the cup was fine", None)


async def test_a_timeline_that_is_longer_than_what_is_read_is_cut(db: Database) -> None:
    await placed(db)
    await db.execute(
        "INSERT INTO observations (order_no, kind, by)"
        " SELECT 'A-1', 'unpaid_seen', 'query' FROM generate_series(1, 1000)"
    )
    assert (await facts_of(db)).is_cut


async def test_a_refused_callback_is_told_apart_from_those_that_were_taken(db: Database) -> None:
    await placed(db)
    await db.execute(
        """
        INSERT INTO refused_callbacks (channel_account, verdict, detail, copies, out_trade_no, order_no, body_hash,
                                       body_bytes, network, headers)
        VALUES ('alipay', 'forged', 'bad_signature', 3, 'alipay-A-1', 'A-1', decode(repeat('00', 32), 'hex'), 2,
                '203.0.113.0/24', '{}')"""
    )
    facts = await facts_of(db)
    assert facts.callbacks == ()
    [refused] = facts.refused
    assert (refused.key, refused.reason, refused.detail, refused.copies) == (
        number("A-1"),
        "forged",
        "bad_signature",
        3,
    )
    [match] = await find_by_number(db, refused.id)
    assert (match.kind, match.order_no, match.callback_id) == (NumberKind.CALLBACK_ID, "A-1", refused.id)
