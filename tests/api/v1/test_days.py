"""/v1 about days, disputes, reconciliations and the work on cases: what programs of operators read and do."""

from datetime import UTC, datetime, timedelta

import pytest

from core.order import CaseReason
from flows.reconcile.requested import read_requested
from flows.reconcile.run import reconcile_day
from runtime.resources import Resources
from simulator.kernel.ledger import Key
from storage.postgres.api_keys import Scope, create_api_key
from storage.postgres.audit import list_acts
from tests.api.conftest import MERCHANT_ID, Channel, terms
from tests.api.driver import Client

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
_OPEN = "INSERT INTO cases (order_no, reason, detail) VALUES ($1, $2, 'x') RETURNING id"
_DISPUTE = """
INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency, respond_by,
                      opened_at, changed_at)
VALUES ('main', $1, 'd-1', $2, 'claim', 'open', 100, 'CNY', now() - interval '1 hour', now(), now())"""


async def paid_yesterday(client: Client, channel: Channel, account: str) -> tuple[str, str]:
    """Number of an order that is paid at the channel alone, and of its payment."""
    placed = (await client.post("/v1/orders", terms(account=account))).json
    number = str(placed["payments"][0]["out_trade_no"])
    noon = datetime.combine(YESTERDAY, datetime.min.time(), UTC) + timedelta(hours=12)
    channel.simulation.ledger.pay(Key(MERCHANT_ID, number), noon)
    return str(placed["order_no"]), number


async def test_a_day_is_read_and_signed_off(
    client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    await paid_yesterday(client, channel, account)
    await reconcile_day(resources, await resources.accounts.get(account), YESTERDAY)
    address = f"/v1/days/{account}/{YESTERDAY}"
    day = (await client.get(address)).json
    assert (day["statement"], day["open_differences"], day["sign_off"]) == ("read", 0, None)
    assert [(line["currency"], line["paid"], line["net"]) for line in day["lines"]] == [("CNY", 8888, 8888)]
    assert day["lines"][0]["statement"]["payments"] == 1

    preview = (await client.post(f"{address}/sign-off", {"reason": "it agrees", "dry_run": True})).json["preview"]
    assert (preview["possible"], preview["refusal"], preview["warnings"]) == (True, None, [])
    stale = await client.post(
        f"{address}/sign-off", {"reason": "it agrees", "expected_version": preview["version"] ^ 1}
    )
    assert (stale.status, stale.problem) == (409, "preview_outdated")
    signed = await client.post(f"{address}/sign-off", {"reason": "it agrees", "expected_version": preview["version"]})
    assert stale.json["preview"] == preview
    assert (await client.post(f"{address}/sign-off", {})).status == 400, "it needs a reason"
    signature = signed.json["day"]["sign_off"]
    assert (signature["by"].startswith("key_"), signature["changed_since"]) == (True, False)

    listed = (await client.get(f"/v1/days?account={account}")).json["days"]
    assert [each["day"] for each in listed] == [YESTERDAY.isoformat()]
    assert (await client.get(f"/v1/days?before={YESTERDAY}")).json["days"] == []
    acts = await list_acts(resources.db, limit=3)
    assert [(act.action, act.subject, act.detail["of"]) for act in acts] == [
        ("day.sign_off", account, YESTERDAY.isoformat())
    ] * 2, "a dry run is no act"


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/v1/days/main/2026-99-01", 404),
        ("/v1/days/main/2999-01-01", 404),
        ("/v1/days/nobody/2026-01-01", 404),
        ("/v1/days?before=x", 400),
        ("/v1/disputes?state=open", 400),
        ("/v1/disputes?cursor=x", 400),
        ("/v1/reconciliations/0", 404),
        ("/v1/reconciliations/999999", 404),
        ("/v1/statements/999999", 404),
        ("/v1/cases/x", 404),
        ("/v1/cases/99999999999999999999", 404),
        ("/v1/cases?reason=none", 400),
        ("/v1/cases?sort=longest", 400),
    ],
)
async def test_what_is_not_there_is_a_problem(client: Client, account: str, address: str, status: int) -> None:
    assert account == "main"
    assert (await client.get(address)).status == status


async def test_a_statement_is_read_when_somebody_asks_and_its_differences_are_listed(
    client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    order_no, _ = await paid_yesterday(client, channel, account)
    body = {"account": account, "day": YESTERDAY.isoformat(), "reason": "callbacks were lost", "dry_run": True}
    requested = await client.post("/v1/statements", body)
    assert (requested.status, requested.json["status"], requested.json["reason"]) == (
        202,
        "waiting",
        "callbacks were lost",
    )
    assert await read_requested(resources)
    done = (await client.get(f"/v1/statements/{requested.json['id']}")).json
    assert (done["status"], done["rows"], done["is_uploaded"]) == ("done", 1, False)
    run = (await client.get(f"/v1/reconciliations/{done['run_id']}")).json
    assert (run["reconciliation"]["dry_run"], run["more"]) == (True, False)
    assert [(each["kind"], each["order_no"]) for each in run["differences"]] == [("paid_there_only", order_no)]
    other = (await client.get(f"/v1/reconciliations/{done['run_id']}?kind=amount")).json
    assert other["differences"] == []
    runs = (await client.get("/v1/reconciliations?limit=1")).json["reconciliations"]
    assert [each["id"] for each in runs] == [done["run_id"]]
    assert (await client.get(f"/v1/reconciliations?before={done['run_id']}")).json["reconciliations"] == []
    assert (await client.post("/v1/statements", body | {"reason": " "})).problem == "invalid_request"


async def test_disputes_are_listed_with_their_order(
    client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    order_no, number = await paid_yesterday(client, channel, account)
    await resources.db.execute(_DISPUTE, number, order_no)
    [dispute] = (await client.get("/v1/disputes")).json["disputes"]
    assert (dispute["order_no"], dispute["overdue"], dispute["withheld"]) == (order_no, True, True)
    assert (await client.get("/v1/disputes?state=won")).json["disputes"] == []


async def test_a_case_is_shown_with_what_to_do_and_assigned_once(client: Client, resources: Resources) -> None:
    case_id = await resources.db.fetchval(_OPEN, "A-1", CaseReason.PAID_LATE.value)
    shown = (await client.get(f"/v1/cases/{case_id}")).json
    assert shown["what"] == "Money arrived after the order was closed."
    assert (shown["case"]["assignee"], shown["case"]["version"]) == (None, 1)
    taken = await client.post(f"/v1/cases/{case_id}/assign", {"assignee": "anna", "version": 1})
    assert (taken.status, taken.json["assignee"], taken.json["version"]) == (200, "anna", 2)
    second = await client.post(f"/v1/cases/{case_id}/assign", {"assignee": "bert", "version": 1})
    assert (second.status, second.problem) == (409, "not_possible")
    assert "anna" in second.json["detail"]
    assert [case["id"] for case in (await client.get("/v1/cases?assignee=anna")).json["cases"]] == [case_id]
    assert (await client.get("/v1/cases?unassigned=true")).json["cases"] == []
    newer = await resources.db.fetchval(_OPEN, "A-2", CaseReason.PAID_LATE.value)
    for sort, ids in (("oldest", [case_id, newer]), ("newest", [newer, case_id])):
        page = (await client.get(f"/v1/cases?sort={sort}&limit=1")).json
        after = (await client.get(f"/v1/cases?sort={sort}&limit=1&cursor={page['next_cursor']}")).json
        assert [page["cases"][0]["id"], after["cases"][0]["id"]] == ids
        assert after["next_cursor"] is None


async def test_who_reads_may_not_act(client: Client, resources: Resources) -> None:
    _, text = await create_api_key(resources.db, "reader", scopes=[Scope.READ])
    reader = Client(client.app, api_key=text)
    assert (await reader.get("/v1/cases?sort=oldest")).status == 200
    for address, body in {
        f"/v1/days/main/{YESTERDAY}/sign-off": {},
        "/v1/statements": {"account": "main", "day": YESTERDAY.isoformat(), "reason": "x"},
        "/v1/cases/1/assign": {"version": 1},
    }.items():
        assert (await reader.post(address, body)).problem == "forbidden"
