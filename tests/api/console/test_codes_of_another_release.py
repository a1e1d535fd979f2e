"""A newer release has written codes and was rolled back: each is shown as it stands, and nothing else breaks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from api.console.routes import ROWS
from core.operators import Role
from core.settings import Settings
from flows.alert import look
from flows.compensation import compensate_callback
from runtime.resources import Resources
from storage.postgres import alerts, callbacks
from storage.postgres.orders import find_state
from tests.api.conftest import Channel, terms
from tests.api.console.conftest import SignedIn
from tests.api.console.test_chinese import WITHOUT_PAGE, addresses_of
from tests.api.driver import Client
from tests.api.test_callbacks import paid_body, send, signed

NEW = "of_tomorrow"
UNKNOWN = "this release does not know it"
NOW = datetime.now(UTC)
YESTERDAY = (NOW - timedelta(days=1)).date()

WRITTEN = (
    "INSERT INTO cases (reason, order_no, channel_account, out_trade_no) VALUES ($3, $1, 'main', $2)",
    "INSERT INTO cases (reason, channel_account) SELECT $3, 'main' WHERE $1 <> $2",
    """INSERT INTO order_events (order_no, version, kind, by, out_trade_no, evidence)
       VALUES ($1, 90, $3, $3, $2, '{"kind": "of_tomorrow", "says": {"more": [1]}}')""",
    "INSERT INTO observations (order_no, kind, by, out_trade_no) VALUES ($1, $3, $3, $2)",
    """INSERT INTO audit (by, via, action, subject, detail) SELECT 'anna', 'console', $3, $1, '{}' WHERE $1 <> $2""",
    """INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at)
       SELECT 'alr_01', $3 || ':x', $3, 'x', 'x is wrong', 0, now() WHERE $1 <> $2""",
    """INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at, cleared_at)
       SELECT 'alr_02', $3 || ':y', $3, 'y', 'y was wrong', 0, now(), now() WHERE $1 <> $2""",
    """INSERT INTO callback_counts (channel_account, reason, count, last_at)
       SELECT 'main', $3, 3, now() WHERE $1 <> $2""",
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ops=True)


class Written:
    """An order with codes of the other release, and what else has them."""

    def __init__(self, order: dict[str, Any], run_id: int, callback_id: str, cases: list[str]) -> None:
        self.order_no: str = order["order_no"]
        self.number: str = order["payments"][0]["out_trade_no"]
        self.run_id = run_id
        self.callback_id = callback_id
        self.cases = cases

    @property
    def values(self) -> dict[str, list[Any]]:
        return {
            "orders": [self.order_no],
            "refund": [self.number],
            "cases": self.cases,
            "callbacks": [self.callback_id],
            "days": ["main"],
            "{account}": [YESTERDAY.isoformat()],
            "reconciliation": [self.run_id],
            "accounts": ["main"],
        }


@pytest.fixture
async def written(client: Client, buyer: Client, account: str, channel: Channel, resources: Resources) -> Written:
    db = resources.db
    order = (await client.post("/v1/orders", terms(account=account))).json
    payment = order["payments"][0]
    body = paid_body(payment)
    assert (await send(buyer, body, signed(body))).status == 200
    callback = await db.fetchrow(
        """UPDATE callbacks SET outcome = $1, handled_at = NULL, due_at = now(),
                  evidence = evidence || jsonb_build_object('kind', $1::text, 'more', '{"a": 1}'::jsonb)
        RETURNING id::text, arm_no""",
        NEW,
    )
    assert callback is not None
    for statement in WRITTEN:
        await db.execute(statement, order["order_no"], payment["out_trade_no"], NEW)
    run_id = await db.fetchval(
        """INSERT INTO reconciliations (channel_account, day, dry_run, status, finished_at, counts)
           VALUES ('main', $1, false, 'finished', now(), jsonb_build_object('rows', 1, $2::text, 1)) RETURNING id""",
        YESTERDAY,
        NEW,
    )
    await db.execute(
        """INSERT INTO reconciliation_differences
                  (reconciliation_id, row_no, kind, order_no, out_trade_no, channel_transaction_id, detail)
           VALUES ($1, 1, $2, $3, $4, '', 'more than we know')""",
        run_id,
        NEW,
        order["order_no"],
        payment["out_trade_no"],
    )
    cases = [str(row["id"]) for row in await db.fetch("SELECT id FROM cases ORDER BY id")]
    return Written(order, run_id, callback["id"], cases)


SHOWN = (
    "/ops/orders",
    "/ops/orders/{order_no}",
    "/ops/cases",
    "/ops/cases/{id}",
    "/ops/cases/{id}/resolve",
    "/ops/callbacks",
    "/ops/callbacks/{callback_id}",
    "/ops/reconciliation/{id}",
    "/ops/alerts",
    "/ops/audit",
)


async def test_every_page_opens_and_shows_the_code_as_it_stands(signed_in: SignedIn, written: Written) -> None:
    admin = await signed_in(Role.ADMIN)
    shown: set[str] = set()
    for row in ROWS:
        if row.route.method != "GET" or row.route.pattern in WITHOUT_PAGE:
            continue
        for address in addresses_of(row.route.pattern, written.values):
            for lang in ("en", "zh"):
                response = await admin.get(address, accept_language=lang)
                assert response.status < 500, (address, response.body.decode()[-500:])
                if NEW in response.body.decode():
                    shown.add(row.route.pattern)
    assert set(SHOWN) - {"/ops/orders"} <= shown
    for address in (f"/ops/cases/{written.cases[0]}", "/ops/alerts", "/ops/callbacks"):
        assert UNKNOWN in (await admin.get(address)).body.decode(), address
    assert f'href="/ops/cases/{written.cases[0]}"' in (await admin.get(f"/ops/cases?reason={NEW}")).body.decode()
    assert written.order_no in (await admin.get("/ops/orders")).body.decode()
    assert NEW in (await admin.get("/ops/orders.csv")).body.decode()


async def test_such_a_case_is_resolved_by_a_note(signed_in: SignedIn, written: Written, resources: Resources) -> None:
    anna = await signed_in(Role.OPERATOR)
    for case_id in written.cases:
        address = f"/ops/cases/{case_id}"
        answer = await anna.post(f"{address}/resolve", {"choice": "note", "reason": "as the newer guide says"})
        assert (answer.status, answer.headers["location"]) == (303, address)
    assert await resources.db.fetchval("SELECT count(*) FROM cases WHERE resolved_at IS NULL") == 0


async def test_the_api_hands_the_code_on(client: Client, written: Written) -> None:
    order = (await client.get(f"/v1/orders/{written.order_no}")).json
    assert order["open_cases"] == [{"reason": NEW, "account": "main", "out_trade_no": written.number}]
    for path in (
        "/v1/orders",
        f"/v1/orders/{written.order_no}/story",
        f"/v1/orders/{written.order_no}/timeline",
        "/v1/cases",
        f"/v1/cases/{written.cases[0]}",
        f"/v1/reconciliations/{written.run_id}",
        "/v1/callbacks",
        "/v1/alerts",
        "/v1/audit",
        "/metrics",
    ):
        answer = await client.get(path)
        assert (answer.status, NEW in answer.body.decode()) == (200, True), path


async def test_the_order_is_paid_beside_such_a_case(
    signed_in: SignedIn, channel: Channel, written: Written, resources: Resources
) -> None:
    await channel.pay(written.number)
    answer = await (await signed_in(Role.OPERATOR)).post(f"/ops/orders/{written.order_no}/query", {"reason": "a test"})
    assert answer.status == 303
    state = await find_state(resources.db, written.order_no)
    assert state is not None
    assert (state.order.status, {reason for _, reason in state.open_cases}) == ("paid", {NEW})


async def test_a_callback_of_an_unknown_kind_leads_to_a_query(
    channel: Channel, written: Written, resources: Resources
) -> None:
    """Neither does it keep the sweep from the callbacks beside it."""
    await channel.pay(written.number)
    await resources.db.execute("UPDATE callbacks SET due_at = now() - interval '1 hour', leased_until = NULL")
    (stored,) = await callbacks.claim_overdue(resources.db, grace_s=1.0, limit=5, lease_s=20.0)
    assert stored.id == written.callback_id
    await resources.db.execute("UPDATE callbacks SET leased_until = NULL")
    await compensate_callback(resources, stored.id, stored.arm_no)
    state = await find_state(resources.db, written.order_no)
    assert state is not None
    assert state.order.status == "paid"


async def test_a_look_leaves_alerts_of_unknown_rules_alone(written: Written, resources: Resources) -> None:
    for _ in range(resources.settings.alert_looks + 1):
        await look(resources)
    assert written.order_no
    rows, _ = await alerts.list_alerts(resources.db)
    assert [row.id for row in rows if row.rule == NEW] == ["alr_01"]
