"""The API for the merchant's backend, through the flows, against Postgres, Redis and a sandbox channel."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from runtime.resources import Resources
from simulator.kernel.ledger import Key as LedgerKey
from storage.postgres.audit import list_acts
from tests.api.conftest import MERCHANT_ID, Channel, open_elsewhere, terms
from tests.api.driver import Client
from tests.servers import eventually


async def test_placing_is_201_and_its_replay_200_with_the_same_order(client: Client) -> None:
    wanted = terms(metadata={"cart": "7"}, return_url="https://shop.test/done")
    placed = await client.post("/v1/orders", wanted)
    again = await client.post("/v1/orders", wanted)
    assert (placed.status, again.status) == (201, 200)
    assert placed.json == again.json
    assert placed.json["status"] == placed.json["public_status"] == "created"
    assert placed.json["order_page"].startswith("http://127.0.0.1:")
    assert placed.json["metadata"] == {"cart": "7"}
    assert (placed.json["payments"], placed.json["open_cases"], placed.json["version"]) == ([], [], 1)


async def test_other_terms_under_the_same_number_are_a_conflict(client: Client) -> None:
    wanted = terms()
    await client.post("/v1/orders", wanted)
    response = await client.post("/v1/orders", wanted | {"amount": 1, "metadata": {"cart": "8"}})
    assert (response.status, response.problem) == (409, "order_conflict")
    assert response.json["detail"].endswith(" exists with other terms: amount, metadata")


async def test_an_order_that_the_client_has_is_not_sent_again(client: Client, channel: Channel, account: str) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    first = await client.get(f"/v1/orders/{placed['order_no']}")
    tag = first.headers["etag"]
    assert tag.startswith(f'"{placed["version"]}-')
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await client.get(f"/v1/orders/{placed['order_no']}", if_none_match=known)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
    await channel.pay(placed["payments"][0]["out_trade_no"])
    await client.post(f"/v1/orders/{placed['order_no']}/refresh")
    changed = await client.get(f"/v1/orders/{placed['order_no']}", if_none_match=tag)
    assert (changed.status, changed.json["status"]) == (200, "paid")
    assert changed.headers["etag"] != tag


async def test_a_currency_that_does_not_exist_is_refused(client: Client) -> None:
    for currency in ("ABC", "XAU", "XTS", "CLF"):
        response = await client.post("/v1/orders", terms(currency=currency))
        assert (response.status, response.problem) == (400, "invalid_request")
        assert currency in response.json["detail"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.5", "169.254.169.254", "[::1]", "[fd00::1]", "127.1", "2130706433", "0x7f.1", "localhost"],
)
async def test_a_notify_url_with_an_address_of_the_inside_is_refused(client: Client, host: str) -> None:
    """A name is resolved for each delivery; an address will be no other later."""
    response = await client.post("/v1/orders", terms(notify_url=f"https://{host}/hook"))
    assert (response.status, response.problem) == (400, "invalid_request")
    assert response.json["detail"] == "notify_url: notifications are not sent to this address"


async def test_a_notify_url_with_a_public_address_is_taken(client: Client) -> None:
    for host in ("8.8.8.8", "[2606:4700::1111]", "shop.internal"):
        assert (await client.post("/v1/orders", terms(notify_url=f"https://{host}/hook"))).status == 201


async def test_placing_with_an_account_hands_out_a_checkout(client: Client, account: str) -> None:
    response = await client.post("/v1/orders", terms(account=account))
    assert response.status == 201
    [payment] = response.json["payments"]
    assert payment["checkout"]["kind"] == "redirect"
    assert (payment["status"], payment["origin"], payment["amount"]) == ("open", "ours", 8888)
    assert (response.json["status"], response.json["public_status"]) == ("paying", "processing")
    assert response.json["handed_off_at"] is not None


async def test_an_unknown_account_has_a_problem_type_of_its_own(client: Client) -> None:
    response = await client.post("/v1/orders", terms(account="nobody"))
    assert (response.status, response.problem) == (404, "unknown_account")


async def test_lost_callback_is_recovered_by_a_refresh(client: Client, account: str, channel: Channel) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    await channel.pay(placed["payments"][0]["out_trade_no"])
    paid = (await client.post(f"/v1/orders/{placed['order_no']}/refresh")).json
    assert (paid["status"], paid["public_status"]) == ("paid", "paid")
    assert paid["paid_by"] == {"account": "main", "out_trade_no": placed["payments"][0]["out_trade_no"]}
    entries = (await client.get(f"/v1/orders/{placed['order_no']}/timeline")).json["entries"]
    versions = [entry["version"] for entry in entries if entry["version"] is not None]
    assert versions == list(range(1, paid["version"] + 1))
    assert entries[-1]["kind"] == "paid"


async def test_a_paid_order_takes_no_other_payment_and_cannot_be_closed(
    client: Client, account: str, channel: Channel
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    await channel.pay(placed["payments"][0]["out_trade_no"])
    address = f"/v1/orders/{placed['order_no']}"
    started = await client.post(f"{address}/payments", {"account": account, "method": "page"})
    closed = await client.post(f"{address}/close")
    assert (started.status, started.problem) == (409, "order_paid")
    assert (closed.status, closed.problem) == (409, "order_paid")


async def test_the_same_way_to_pay_is_used_again(client: Client, account: str) -> None:
    placed = (await client.post("/v1/orders", terms())).json
    address = f"/v1/orders/{placed['order_no']}/payments"
    first = await client.post(address, {"account": account})
    again = await client.post(address, {"account": account})
    assert (first.status, again.status) == (201, 200)
    assert len(again.json["payments"]) == 1


async def test_an_unpaid_order_is_closed_on_request_after_its_channel_was_asked(
    client: Client, account: str, channel: Channel
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    closed = await client.post(f"/v1/orders/{placed['order_no']}/close")
    assert (closed.status, closed.json["status"]) == (200, "closed")


async def test_a_watched_payment_is_queried_and_never_created(client: Client, account: str) -> None:
    number = "legacy-0001"
    response = await client.post("/v1/orders", terms(account=account, watch={"out_trade_no": number}))
    assert response.status == 201
    [payment] = response.json["payments"]
    assert (payment["out_trade_no"], payment["origin"], payment["checkout"]) == (number, "watched", None)
    taken = await client.post("/v1/orders", terms(account=account, watch={"out_trade_no": number}))
    assert (taken.status, taken.problem) == (409, "number_taken")


async def test_orders_are_listed_newest_first_and_a_cursor_leads_on(client: Client) -> None:
    placed = [(await client.post("/v1/orders", terms())).json["order_no"] for _ in range(3)]
    first = (await client.get("/v1/orders?limit=2")).json
    second = (await client.get(f"/v1/orders?limit=2&cursor={first['next_cursor']}")).json
    assert [order["order_no"] for order in first["orders"] + second["orders"]] == placed[::-1]
    assert second["next_cursor"] is None
    assert (await client.get("/v1/orders?status=paid")).json["orders"] == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=1&limit=2", "cursor=%00", "cursor=zzzz", "status=lost", "colour=red",
     "created_after=2026-01-01T00:00:00", "limit=%ff", "account=UPPER", "limit", "&".join(["a=1"] * 60)],
)  # fmt: skip
async def test_a_query_that_is_not_of_the_table_is_refused(client: Client, query: str) -> None:
    response = await client.get(f"/v1/orders?{query}")
    assert (response.status, response.problem) == (400, "invalid_request")


async def test_cases_are_listed(client: Client) -> None:
    assert (await client.get("/v1/cases?open=false&reason=paid_late")).json == {"cases": [], "next_cursor": None}


@pytest.mark.parametrize("order_no", ["A-missing", "%00", "%ff", "..", "a%2Fb", "x" * 65])
async def test_what_is_not_there_is_404_whatever_its_name(client: Client, order_no: str) -> None:
    for suffix, method in (("", "GET"), ("/timeline", "GET"), ("/refresh", "POST"), ("/close", "POST")):
        response = await client.call(method, f"/v1/orders/{order_no}{suffix}")
        assert (response.status, response.problem) == (404, "not_found")


async def test_one_order_refreshed_a_hundred_times_at_once_is_one_query(
    client: Client, account: str, channel: Channel
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    before = await channel.queries()
    responses = await asyncio.gather(*(client.post(f"/v1/orders/{placed['order_no']}/refresh") for _ in range(100)))
    assert {response.status for response in responses} == {200}
    assert await channel.queries() - before == 1


async def test_a_callback_is_acknowledged_in_the_channels_own_words(
    client: Client, account: str, channel: Channel, served: str
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    number = placed["payments"][0]["out_trade_no"]
    await channel.pay(number, "none")
    tally = channel.simulation.sender.tally(LedgerKey(MERCHANT_ID, number))

    # The simulator compares status and body with what its channel wants, byte by byte, and sends again otherwise.
    await eventually(lambda: tally.acknowledged)

    assert (tally.sent, tally.acknowledged, tally.refused) == (1, 1, 0)
    assert (await client.get(f"/v1/orders/{placed['order_no']}")).json["status"] == "paid"


# -- who pays, and until when ------------------------------------------------------------------------------------------

OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
CLIENT_IP = "2001:db8::1428:57ab"


async def test_data_about_the_payer_is_neither_kept_nor_shown_nor_logged(
    client: Client, account: str, resources: Resources
) -> None:
    payer = {"openid": OPENID, "client_ip": CLIENT_IP}
    with capture_logs() as lines:
        placed = await client.post("/v1/orders", terms(account=account, payer=payer))
        unpaid = (await client.post("/v1/orders", terms())).json
        path = f"/v1/orders/{unpaid['order_no']}/payments"
        started = await client.post(path, {"account": account, "payer": payer})
    assert (placed.status, started.status) == (201, 201)
    tables = await resources.db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    kept = [
        await resources.db.fetch(f'SELECT t::text FROM "{table}" t')  # noqa: S608 - Postgres's own
        for (table,) in tables
    ]
    everything = repr((kept, lines, placed.json, started.json))
    assert placed.json["order_no"] in repr(kept)
    assert "order_placed" in [line["event"] for line in lines]
    assert OPENID not in everything
    assert CLIENT_IP not in everything


@pytest.mark.parametrize(
    "payer",
    [{"openid": ""}, {"openid": "x" * 129}, {"openid": "a b"}, {"client_ip": "1.2.3"}, {"client_ip": "fe80::1%eth0"},
     {"client_ip": "1.2.3.4, 5.6.7.8"}, {"client_ip": ":" * 45}, {"name": "Ann"}, OPENID],
    ids=str,
)  # fmt: skip
async def test_a_payer_that_is_none_is_refused_and_not_repeated(client: Client, account: str, payer: object) -> None:
    for path, body in (
        ("/v1/orders", terms(account=account, payer=payer)),
        ("/v1/orders/A-1/payments", {"account": account, "payer": payer}),
    ):
        response = await client.post(path, body)
        assert (response.status, response.problem) == (400, "invalid_request"), path
        value = next(iter(payer.values())) if isinstance(payer, dict) else payer
        assert not value or str(value) not in response.json["detail"]


async def test_a_payer_without_a_payment_is_refused(client: Client) -> None:
    response = await client.post("/v1/orders", terms(payer={"openid": OPENID}))
    assert (response.status, "account is missing" in response.json["detail"]) == (400, True)


async def test_a_method_that_the_channel_does_not_know_is_refused_and_nothing_is_placed(
    client: Client, account: str
) -> None:
    wanted = terms(account=account, method="jsapi")
    response = await client.post("/v1/orders", wanted)
    assert (response.status, response.problem, "page" in response.json["detail"]) == (400, "invalid_request", True)
    assert (await client.get(f"/v1/orders/{wanted['order_no']}")).status == 404
    placed = (await client.post("/v1/orders", terms())).json
    path = f"/v1/orders/{placed['order_no']}/payments"
    assert (await client.post(path, {"account": account, "method": "jsapi"})).status == 400
    assert (await client.post(path, {"account": account, "method": "page"})).status == 201


@pytest.mark.parametrize("until", ["2099-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"])
async def test_a_payment_is_watched_for_ten_years_at_most(client: Client, account: str, until: str) -> None:
    watch = {"out_trade_no": "legacy-0002", "payable_until": until}
    response = await client.post("/v1/orders", terms(account=account, watch=watch))
    assert (response.status, "watch.payable_until" in response.json["detail"]) == (400, True)
    watch["payable_until"] = (datetime.now(UTC) + timedelta(days=3649)).isoformat()
    assert (await client.post("/v1/orders", terms(account=account, watch=watch))).status == 201


async def test_the_payer_reaches_the_channel_that_needs_one(
    client: Client, channel: Channel, resources: Resources
) -> None:
    """WeChat Pay's jsapi wants an openid; a request without it places nothing."""
    await open_elsewhere(resources, channel, "wechatpay", "cn")
    wanted = terms(account="cn", method="jsapi")
    without = await client.post("/v1/orders", wanted)
    assert (without.status, "payer.openid" in without.json["detail"]) == (400, True)
    placed = await client.post("/v1/orders", wanted | {"payer": {"openid": OPENID}})
    assert placed.status == 201
    checkout = placed.json["payments"][0]["checkout"]
    assert checkout["kind"] == "client"
    assert (await client.post("/v1/orders", wanted | {"payer": {"openid": OPENID}})).json["payments"][0][
        "checkout"
    ] == (checkout)
    page = await client.post("/v1/orders", terms(account="cn", method="h5", payer={"client_ip": CLIENT_IP}))
    assert (page.status, page.json["payments"][0]["checkout"]["kind"]) == (201, "redirect")
    ends_at = datetime.fromisoformat(page.json["payments"][0]["checkout"]["ends_at"])
    assert timedelta(minutes=4) < ends_at - datetime.fromisoformat(page.json["created_at"]) <= timedelta(minutes=5)


async def test_a_close_has_a_dry_run_and_a_reason_and_needs_neither(
    client: Client, account: str, resources: Resources
) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json
    address = f"/v1/orders/{order['order_no']}/close"
    shown = await client.post(address, {"dry_run": True})
    assert [line["key"] for line in shown.json["preview"]["lines"]] == [
        "close.asks", "close.if_unpaid", "order.not_notified"
    ]  # fmt: skip
    assert await list_acts(resources.db, limit=9) == [], "a dry run is no act"
    assert (await client.get(f"/v1/orders/{order['order_no']}")).json["status"] == "paying"
    closed = await client.post(address, {"reason": "the buyer has cancelled"})
    assert (closed.status, closed.json["status"]) == (200, "closed")
    assert (await client.post(address)).json["status"] == "closed"
    bare, reasoned = await list_acts(resources.db, limit=9)
    assert (bare.action, bare.detail) == ("order.close", {})
    assert (reasoned.action, reasoned.detail) == ("order.close", {"reason": "the buyer has cancelled"})
    assert (await client.post(address, {"reason": ""})).status == 400
    assert (await client.post(address, {"why": "x"})).status == 400


async def test_a_refresh_with_a_reason_is_an_act_of_a_person(
    client: Client, account: str, resources: Resources
) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json
    address = f"/v1/orders/{order['order_no']}/refresh"
    assert (await client.post(address, {"dry_run": True})).json["preview"]["lines"][0]["key"] == "query.asks"
    assert (await client.post(address)).status == 200
    assert await list_acts(resources.db, limit=9) == []
    assert (await client.post(address, {"reason": "the buyer wrote"})).json["order_no"] == order["order_no"]
    [act] = await list_acts(resources.db, limit=9)
    assert (act.action, act.subject, act.detail) == ("order.query", order["order_no"], {"reason": "the buyer wrote"})
    assert (await client.post("/v1/orders/none/refresh", {"dry_run": True})).status == 404
