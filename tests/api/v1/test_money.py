"""Acts on orders and money over HTTP: a dry run, a reason, a row in the audit, and two operators for two persons."""

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from api.context import Context
from api.http.asgi import App
from core.acts import REASON_MAX
from core.operators import Role
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.api_keys import Scope, create_api_key
from storage.postgres.audit import list_acts
from storage.postgres.operators import insert_operator
from tests.api.conftest import Channel, terms
from tests.api.driver import Client

REASON = "one cup was broken"
Paid = Callable[[], Awaitable[dict[str, str]]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ops_refund_alone_max="20 CNY")


@pytest.fixture
async def paid(client: Client, account: str, channel: Channel) -> Paid:
    """Place an order and pay it."""

    async def make() -> dict[str, str]:
        placed = (await client.post("/v1/orders", terms(account=account))).json
        await channel.pay(placed["payments"][0]["out_trade_no"])
        refreshed = (await client.post(f"/v1/orders/{placed['order_no']}/refresh")).json
        assert refreshed["status"] == "paid"
        return {"order_no": placed["order_no"], "out_trade_no": placed["payments"][0]["out_trade_no"]}

    return make


KeyOf = Callable[[str], Awaitable[Client]]


@pytest.fixture
def key_of(app: App[Context], resources: Resources) -> KeyOf:
    """Make a client with a new key of an operator."""

    async def make(operator: str) -> Client:
        await insert_operator(resources.db, operator, Role.OPERATOR, "no hash of anything")  # once for each name
        _, text = await create_api_key(resources.db, "a program", operator=operator)
        return Client(app, api_key=text)

    return make


@pytest.fixture
async def ann(key_of: KeyOf) -> Client:
    return await key_of("ann")


@pytest.fixture
async def bob(key_of: KeyOf) -> Client:
    return await key_of("bob")


def refund_of(order: dict[str, str], **more: object) -> dict[str, object]:
    return {"out_trade_no": order["out_trade_no"], "key": "ticket-77", "reason": REASON, "amount": 1250, **more}


async def acts(resources: Resources) -> list[tuple[str, str]]:
    return [(row.action, row.subject) for row in reversed(await list_acts(resources.db, limit=50))]


async def test_a_part_is_refunded_once_for_each_key(client: Client, paid: Paid, resources: Resources) -> None:
    order = await paid()
    address = f"/v1/orders/{order['order_no']}/refunds"
    first, again = await client.post(address, refund_of(order)), await client.post(address, refund_of(order))
    assert (first.status, again.status) == (200, 200)
    refund = first.json["refund"]
    assert (refund["amount"], refund["key"], refund["reason"]) == (1250, "ticket-77", "operator")
    assert again.json["refund"]["refund_no"] == refund["refund_no"]
    assert refund["channel_refund_no"] is None, "the channel was not asked yet"
    await resources.db.execute("UPDATE refunds SET status = 'processing', channel_refund_no = 're_1'")
    [shown] = (await client.get(f"/v1/orders/{order['order_no']}")).json["refunds"]
    assert shown["channel_refund_no"] == "re_1"
    found = (await client.get("/v1/search?number=re_1")).json
    assert (found["order_no"], found["matches"][0]["kind"]) == (order["order_no"], "channel_refund_no")
    assert (first.json["order"]["status"], first.json["approval"], first.json["preview"]) == ("paid", None, None)
    other = await client.post(address, refund_of(order, amount=1251))
    assert (other.status, other.problem) == (409, "refund_conflict")
    [row, *_] = await list_acts(resources.db, limit=1)
    assert (row.action, row.subject, row.via) == ("order.refund", order["order_no"], "api")
    assert row.detail == {"out_trade_no": order["out_trade_no"], "amount": 1251, "key": "ticket-77", "reason": REASON}


async def test_a_dry_run_says_what_would_happen_and_does_nothing(
    client: Client, paid: Paid, resources: Resources
) -> None:
    order = await paid()
    address = f"/v1/orders/{order['order_no']}/refunds"
    shown = await client.post(address, refund_of(order, dry_run=True))
    preview = shown.json["preview"]
    assert (shown.status, preview["possible"], preview["refusal"]) == (200, True, None)
    line = preview["lines"][0]
    assert (line["key"], line["figures"]["amount"]) == ("refund.gives_back", {"amount": 1250, "currency": "CNY"})
    assert line["text"].startswith("12.50 CNY of payment ")
    assert (await client.get(f"/v1/orders/{order['order_no']}")).json["refunds"] == []
    assert await acts(resources) == []
    too_much = (await client.post(address, refund_of(order, dry_run=True, amount=8889))).json["preview"]
    assert (too_much["possible"], too_much["refusal"]["key"]) == (False, "refund.too_much")


async def test_an_order_that_moved_is_not_acted_upon(client: Client, paid: Paid) -> None:
    order = await paid()
    address = f"/v1/orders/{order['order_no']}/refunds"
    stale = await client.post(address, refund_of(order, expected_version=1))
    assert (stale.status, stale.problem) == (409, "preview_outdated")
    now = (await client.post(address, refund_of(order, dry_run=True))).json["preview"]
    assert stale.json["preview"] == now
    assert (now["possible"], now["version"] > 1) == (True, True)
    refused = await client.post(address, refund_of(order, amount=8889))
    assert "preview" not in refused.json
    assert (refused.status, refused.problem) == (409, "not_possible")
    assert refused.json["detail"] == "So much is not left: 88.88 CNY can still go back."


async def test_above_the_limit_the_key_of_another_operator_has_to_agree(
    client: Client, ann: Client, bob: Client, key_of: KeyOf, paid: Paid, resources: Resources
) -> None:
    """Two keys of one operator are one person, and keys of nobody are nobody."""
    order = await paid()
    of_nobody = await client.post(f"/v1/orders/{order['order_no']}/refunds", refund_of(order, amount=5000))
    assert (of_nobody.status, of_nobody.problem) == (409, "not_possible")
    assert "an API key of an operator" in of_nobody.json["detail"]
    assert (await client.get("/v1/approvals")).json["approvals"] == []
    waiting = await ann.post(f"/v1/orders/{order['order_no']}/refunds", refund_of(order, amount=5000))
    approval = waiting.json["approval"]
    assert (waiting.status, waiting.json["refund"], approval["decision"]) == (202, None, None)
    listed = (await client.get("/v1/approvals")).json
    assert ([row["id"] for row in listed["approvals"]], listed["next_id"]) == ([approval["id"]], None)

    address = f"/v1/approvals/{approval['id']}"
    assert approval["requested_by"] == "ann"
    for own in (ann, await key_of("ann")):
        refused = await own.post(f"{address}/approve", {"reason": "mine"})
        assert (refused.status, refused.problem) == (409, "not_possible")
        assert refused.json["detail"].startswith("Somebody else has to decide")
    for act in ("approve", "decline"):
        refused = await client.post(f"{address}/{act}", {"reason": "of nobody"})
        assert (refused.status, refused.problem) == (409, "not_possible")
        shown = (await client.post(f"{address}/{act}", {"reason": "of nobody", "dry_run": True})).json["preview"]
        assert shown["refusal"]["key"] == "approval.needs_person"
    shown = await bob.post(f"{address}/approve", {"reason": "seen", "dry_run": True})
    assert shown.json["preview"]["lines"][0]["key"] == "approval.asked_by"
    approved = await bob.post(f"{address}/approve", {"reason": "seen"})
    assert (approved.status, approved.json["refund"]["amount"]) == (200, 5000)
    assert approved.json["approval"]["refund_no"] == approved.json["refund"]["refund_no"]
    assert (await client.get("/v1/approvals")).json["approvals"] == []
    assert len((await client.get("/v1/approvals?open=false&limit=1")).json["approvals"]) == 1
    [row, *_] = await list_acts(resources.db, limit=1)
    assert (row.by, row.via, row.action) == ("bob", "api", "refund.approve")
    assert row.detail["key_id"].startswith("key_")
    note = await resources.db.fetchval("SELECT note FROM order_events WHERE kind = 'refund_requested'")
    assert note.endswith("by ann, approved by bob")


async def test_a_declined_refund_is_not_made(client: Client, ann: Client, bob: Client, paid: Paid) -> None:
    order = await paid()
    waiting = await ann.post(f"/v1/orders/{order['order_no']}/refunds", refund_of(order, amount=5000))
    address = f"/v1/approvals/{waiting.json['approval']['id']}"
    shown = await bob.post(f"{address}/decline", {"reason": "no", "dry_run": True})
    assert shown.json["preview"]["lines"][0]["key"] == "approval.declines"
    declined = await bob.post(f"{address}/decline", {"reason": "the cup was fine"})
    assert declined.json["approval"]["decision"] == "declined"
    late = await bob.post(f"{address}/approve", {"reason": "after all"})
    assert (late.status, late.problem) == (409, "not_possible")
    assert (await client.get(f"/v1/orders/{order['order_no']}")).json["refunds"] == []


async def test_a_number_that_nodrop_does_not_know_is_looked_up_and_attached(
    client: Client, account: str, channel: Channel, resources: Resources
) -> None:
    placed = (await client.post("/v1/orders", terms())).json
    elsewhere = (await client.post("/v1/orders", terms(account=account))).json
    number = elsewhere["payments"][0]["out_trade_no"]
    await channel.pay(number)
    known = (await client.post("/v1/lookups", {"account": account, "number": number})).json
    assert (known["order_no"], known["says"]["key"]) == (elsewhere["order_no"], "attach.says_paid")
    assert known["evidence"]["kind"] == "paid"
    body = {"account": account, "number": number, "reason": "the buyer wrote"}
    address = f"/v1/orders/{placed['order_no']}/attach"
    shown = (await client.post(address, body | {"dry_run": True})).json["preview"]
    assert shown["refusal"]["key"] == "attach.is_known"
    refused = await client.post(address, body)
    assert (refused.status, refused.problem) == (409, "not_possible")

    await resources.db.execute("DELETE FROM pending")
    for table in ("order_events", "payments", "orders"):
        await resources.db.execute(f"DELETE FROM {table} WHERE order_no = $1", elsewhere["order_no"])  # noqa: S608 - ours
    attached = await client.post(address, body)
    assert (attached.status, attached.json["order"]["status"]) == (200, "paid")
    unknown = await client.post("/v1/lookups", {"account": "none", "number": number})
    assert (unknown.status, unknown.problem) == (404, "unknown_account")


async def test_late_money_is_accepted_and_its_case_is_answered(
    client: Client, account: str, channel: Channel, resources: Resources
) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json
    address = f"/v1/orders/{order['order_no']}/accept"
    nothing = (await client.post(address, {"reason": REASON, "dry_run": True})).json["preview"]
    assert nothing["refusal"]["key"] == "accept.no_money"
    refused = await client.post(address, {"reason": REASON})
    assert (refused.status, refused.problem) == (409, "not_possible")
    sql = "INSERT INTO cases (reason, channel_account) VALUES ('statement_total', 'main') RETURNING id"
    case_id = await resources.db.fetchval(sql)
    shown = await client.post(f"/v1/cases/{case_id}/resolve", {"reason": REASON, "dry_run": True})
    assert shown.json["preview"]["lines"][0]["key"] == "case.notes"
    resolved = await client.post(f"/v1/cases/{case_id}/resolve", {"reason": REASON})
    assert (resolved.status, resolved.json["case"]["resolution"]) == (200, REASON)
    again = await client.post(f"/v1/cases/{case_id}/resolve", {"reason": REASON})
    assert (again.status, again.problem) == (409, "not_possible")
    wrong = await client.post(f"/v1/cases/{case_id}/resolve", {"reason": REASON, "choice": "forget"})
    assert (wrong.status, wrong.problem) == (400, "invalid_request")


async def test_an_account_is_switched_off_and_on(client: Client, account: str, resources: Resources) -> None:
    shown = await client.post(f"/v1/accounts/{account}/disable", {"reason": REASON, "dry_run": True})
    assert [line["key"] for line in shown.json["preview"]["lines"]] == ["account.stops", "account.goes_on"]
    sql = "SELECT enabled FROM accounts WHERE name = $1"
    assert await resources.db.fetchval(sql, account)
    await client.post(f"/v1/accounts/{account}/disable", {"reason": REASON})
    assert not await resources.db.fetchval(sql, account)
    again = await client.post(f"/v1/accounts/{account}/disable", {"reason": REASON})
    assert (again.status, again.problem) == (409, "not_possible")
    assert again.json["detail"] == "The account is switched off already."
    await client.post(f"/v1/accounts/{account}/enable", {"reason": REASON})
    assert await resources.db.fetchval(sql, account)
    assert (await client.post("/v1/accounts/none/disable", {"reason": REASON})).status == 404
    assert await acts(resources) == [("account.disable", account), ("account.enable", account)]


@pytest.mark.parametrize("path", ["/v1/approvals/x/approve", "/v1/approvals/9/approve", "/v1/cases/9/resolve"])
async def test_what_is_not_there_is_not_found(client: Client, path: str) -> None:
    response = await client.post(path, {"reason": REASON})
    assert (response.status, response.problem) == (404, "not_found")


@pytest.mark.parametrize("reason", [None, "", " ", "x" * (REASON_MAX + 1)])
async def test_an_act_needs_a_reason(client: Client, paid: Paid, reason: str | None) -> None:
    order = await paid()
    body = refund_of(order) | {"reason": reason}
    response = await client.post(f"/v1/orders/{order['order_no']}/refunds", body)
    assert (response.status, response.problem) == (400, "invalid_request")


async def test_an_act_needs_the_scope_operate(app: App[Context], paid: Paid, resources: Resources) -> None:
    order = await paid()
    _, text = await create_api_key(resources.db, "shop", scopes=set(Scope) - {Scope.OPERATE})
    refused = await Client(app, api_key=text).post(f"/v1/orders/{order['order_no']}/refunds", refund_of(order))
    assert (refused.status, refused.problem) == (403, "forbidden")
