"""Plans of all statements that the pages send, with every filter: none reads a table that grows, or an index of one,
from its beginning to its end. The plans are made while the tables are empty, and are kept.
"""

from datetime import date
from itertools import batched

import pytest

from api.console.routes import ROWS
from bench.console_pages import Places, pages_of
from core.operators import Role
from runtime.resources import Resources
from storage.postgres.accounts import list_accounts
from storage.postgres.cursors import encode_cursor
from storage.postgres.orders import find_now
from tests.api.console.conftest import SignedIn
from tests.storage.postgres.plans import wide_plans
from tests.storage.postgres.tools import commit_evidence, paid, placed

AT_ONCE = 20
"""Pages whose statements are all still kept by their connections."""

BOUNDED = ("LIMIT 100000", "LIMIT 20000", "LIMIT 10000", "LIMIT 5000")
"""Of statements that count rows in the order of an index, up to a limit."""


@pytest.fixture
def database_url(new_database_url: str) -> str:
    """One whose connections are of this test alone: so are the plans that they keep."""
    return new_database_url


async def fill(resources: Resources) -> dict[str, list[str]]:
    """One row of each kind; returns the parameters of addresses."""
    db = resources.db
    await placed(db, "A-1")
    await commit_evidence(db, "A-1", paid("A-1"))
    await db.execute("INSERT INTO cases (order_no, reason) VALUES ('A-1', 'paid_late')")
    run = "INSERT INTO reconciliations (channel_account, day, dry_run, status, finished_at)"
    await db.execute(f"{run} VALUES ('alipay', '2026-11-20', false, 'finished', now())")
    await db.execute(
        "INSERT INTO refused_callbacks (channel_account, verdict, body_hash, body_bytes)"
        " VALUES ('alipay', 'forged', sha256('x'), 1)"
    )
    await db.execute("INSERT INTO closings (channel_account, day, money) VALUES ('alipay', '2026-11-20', '{}')")

    async def ids(sql: str) -> list[str]:
        return [str(row["id"]) for row in await db.fetch(sql)]

    accounts = [row.name for row in await list_accounts(db)] or ["alipay"]
    return {
        "orders": ["A-1"] * 2,
        "refund": await ids("SELECT out_trade_no AS id FROM payments WHERE order_no = 'A-1'"),
        "approvals": ["1"],
        "cases": await ids("SELECT id FROM cases WHERE order_no = 'A-1'"),
        "notifications": await ids("SELECT id FROM notifications WHERE order_no = 'A-1'"),
        "callbacks": await ids("SELECT id FROM refused_callbacks"),
        "days": accounts,
        "{account}": ["2026-11-20"],
        "reconciliation": await ids("SELECT id FROM reconciliations"),
        "accounts": accounts,
        "operators": ["admin"],
        "static": ["ops.css"],
    }


async def test_no_page_reads_a_table_from_its_beginning_to_its_end(
    signed_in: SignedIn, resources: Resources, account: str
) -> None:
    browser = await signed_in(Role.ADMIN)
    values = await fill(resources)
    now = await find_now(resources.db)
    of_text, of_number = encode_cursor(now, "x"), encode_cursor(now, "1")
    of_uuid = encode_cursor(now, "00000000-0000-0000-0000-000000000001")
    places = Places(of_text, of_text, of_text, of_uuid, of_number, of_number, date(2026, 11, 20))
    found: dict[str, list[str]] = {}
    for pages in batched(pages_of(ROWS, values | {"accounts": [account]}, places).items(), AT_ONCE, strict=False):
        for name, address in pages:
            response = await browser.get(address(0))
            assert response.status in {200, 303, 404}, (name, response.body.decode())
        found |= {
            sql: parts
            for sql, parts in (await wide_plans(resources.db)).items()
            if not any(mark in sql for mark in BOUNDED)
        }
    assert found == {}
