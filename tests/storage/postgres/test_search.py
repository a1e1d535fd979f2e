"""An order is found by every number that somebody may hold, and by nothing else."""

import pytest

from storage.postgres.database import Database
from storage.postgres.inbox import insert_callback
from storage.postgres.search import Match, NumberKind, find_by_number, order_of, token_of
from tests.sealed import SEALER
from tests.storage.postgres.tools import commit_evidence, number, paid, placed

# Triggers would only repeat what belongs to another test.
_MORE = """
SET LOCAL session_replication_role = replica;
UPDATE payments SET channel_reference = 'cs_1', channel_refunds = '{"re_1": 5, "re_2": 6}' WHERE order_no = 'A-1';
INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status, requested_at,
                     channel_refund_no)
VALUES ('r-1', 'alipay', 'alipay-A-1', 'A-1', 1, 'CNY', 'double', 'processing', now(), 're_3');
INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, opened_at, changed_at)
VALUES ('alipay', 'alipay-A-1', 'du_1', 'A-1', 'claim', 'open', now(), now());
INSERT INTO cases (id, order_no, reason) OVERRIDING SYSTEM VALUE VALUES (4711, 'A-1', 'disputed'), (4712, NULL, 'x');
"""
_ACCOUNTS = "INSERT INTO accounts (name, channel, sealed) VALUES ('alipay', 'alipay', ''), ('other', 'stripe', '')"
TOKEN = "abcdefghijklmnopqrstu_"
NOTIFICATION = "evt-of-the-channel"


async def fill(db: Database) -> tuple[str, str]:
    """Two orders, of which A-1 has everything. Returns the ids of its notification and its callback."""
    await db.execute(_ACCOUNTS)
    await placed(db, "A-1", page_token=TOKEN)
    await placed(db, "A-12")
    committed = await commit_evidence(db, "A-1", paid("A-1"))
    await db.execute(_MORE)
    callback = await insert_callback(
        db,
        SEALER,
        account="alipay",
        notification_id=NOTIFICATION,
        headers={},
        body=b"{}",
        evidence=paid("A-1"),
        received_at=None,
        due_s=60.0,
        kept_s=60.0,
    )
    assert committed.notification_id is not None
    return committed.notification_id, callback.id


async def test_an_order_is_found_by_each_number_and_each_says_which_it_is(db: Database) -> None:
    notification_id, callback_id = await fill(db)
    for text, kind in (
        ("A-1", NumberKind.ORDER_NO),
        (" A-1\n", NumberKind.ORDER_NO),
        (TOKEN, NumberKind.ORDER_PAGE),
        (f"https://pay.shop.test/o/{TOKEN}?lang=zh", NumberKind.ORDER_PAGE),
        ("alipay-A-1", NumberKind.OUT_TRADE_NO),
        ("t-alipay-A-1", NumberKind.CHANNEL_TRANSACTION_ID),
        ("cs_1", NumberKind.CHANNEL_REFERENCE),
        ("r-1", NumberKind.REFUND_NO),
        ("re_2", NumberKind.CHANNEL_REFUND_NO),
        ("re_3", NumberKind.CHANNEL_REFUND_NO),
        (notification_id, NumberKind.NOTIFICATION_ID),
        (NOTIFICATION, NumberKind.CHANNEL_NOTIFICATION_ID),
        (callback_id, NumberKind.CALLBACK_ID),
        ("du_1", NumberKind.DISPUTE_ID),
        ("4711", NumberKind.CASE_ID),
        ("#4711", NumberKind.CASE_ID),
    ):
        matches = await find_by_number(db, text)
        exact = [match for match in matches if match.is_exact]
        assert [(match.kind, match.order_no) for match in exact] == [(kind, "A-1")], text
        assert order_of(matches) == "A-1"


async def test_a_refund_that_was_listed_before_it_was_ours_is_one_match(db: Database) -> None:
    await fill(db)
    await db.execute("""UPDATE payments SET channel_refunds = '{"re_3": 1}' WHERE order_no = 'A-1'""")
    assert [(match.number, match.account) for match in await find_by_number(db, "re_3")] == [("re_3", "alipay")]


async def test_the_token_of_a_page_is_in_no_match(db: Database) -> None:
    await fill(db)
    for text in (TOKEN, f"http://127.0.0.1:8000/o/{TOKEN}/return"):
        assert TOKEN not in repr(await find_by_number(db, text))


async def test_an_order_number_is_found_by_its_beginning_after_the_whole_one(db: Database) -> None:
    await fill(db)
    await placed(db, "B-1")
    await placed(db, "a-13")
    assert [(match.kind, match.order_no) for match in await find_by_number(db, "A-1")] == [
        (NumberKind.ORDER_NO, "A-1"),
        (NumberKind.ORDER_NO_PREFIX, "A-12"),
    ]
    beginning = await find_by_number(db, "A-")
    assert [match.order_no for match in beginning] == ["A-1", "A-12"]
    assert order_of(beginning) is None
    assert await find_by_number(db, "A") == []


async def test_what_belongs_to_no_order_here_is_found_as_that(db: Database) -> None:
    await fill(db)
    stored = await insert_callback(
        db,
        SEALER,
        account="other",
        notification_id="evt-unknown",
        headers={},
        body=b"{}",
        evidence=paid(key=number("A-9", "other")),
        received_at=None,
        due_s=60.0,
        kept_s=60.0,
    )
    [match] = await find_by_number(db, "evt-unknown")
    assert (match.order_no, match.account, match.callback_id) == (None, "other", stored.id)
    assert order_of([match]) is None
    [case] = await find_by_number(db, "4712")
    assert (case.kind, case.order_no) == (NumberKind.CASE_ID, None)


async def test_a_number_of_two_orders_leads_to_none_of_them(db: Database) -> None:
    """Two systems may watch the same payment at the channel."""
    await fill(db)
    await db.execute("UPDATE payments SET channel_reference = 'cs_1'")
    matches = await find_by_number(db, "cs_1")
    assert {match.order_no for match in matches} == {"A-1", "A-12"}
    assert order_of(matches) is None


def test_a_cases_number_counts_only_where_nothing_else_has_it() -> None:
    order = Match(kind=NumberKind.ORDER_NO, number="17", order_no="17")
    case = Match(kind=NumberKind.CASE_ID, number="17", order_no="A-1")
    assert order_of([order, case]) == "17"
    assert order_of([case]) == "A-1"
    assert order_of([]) is None


@pytest.mark.parametrize("text", ["", "  ", "x" * 301, "none", "%", "A_1", "A-1%", "\0", "\ud800", "' OR true --", "٣"])
async def test_what_is_no_ones_number_finds_nothing(db: Database, text: str) -> None:
    await fill(db)
    assert await find_by_number(db, text) == []


@pytest.mark.parametrize(
    ("text", "token"),
    [
        (f"https://pay.shop.test/o/{TOKEN}", TOKEN),
        (f"/o/{TOKEN}#top", TOKEN),
        (f"  https://pay.shop.test/o/{TOKEN}/return?x=1 ", TOKEN),
        ("https://pay.shop.test/o/shell", None),
        (TOKEN, None),
        ("A-1", None),
    ],
)
def test_a_link_is_told_from_a_number(text: str, token: str | None) -> None:
    assert token_of(text) == token
