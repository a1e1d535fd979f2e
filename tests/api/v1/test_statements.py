"""/v1 about statements: uploaded, seen and confirmed, each in the audit."""

import pytest

from flows.reconcile.requested import read_requested
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from tests.api.conftest import Channel
from tests.api.driver import Client
from tests.api.v1.test_days import YESTERDAY, paid_yesterday

HEADER = "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"
ADDRESS = f"/v1/days/main/{YESTERDAY}/statement"
REASON = {"reason": "the channel's portal had it"}


async def test_a_file_is_uploaded_seen_and_done(
    client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    order_no, number = await paid_yesterday(client, channel, account)
    content = f"{HEADER}payment,{number},t-1,,8888,CNY,{YESTERDAY}T12:00:00Z\n".encode()
    sent = await client.call("POST", ADDRESS, body=content, headers={"content-type": "text/csv"})
    assert (sent.status, sent.json["status"], sent.json["is_uploaded"], sent.json["dry_run"]) == (
        202,
        "waiting",
        True,
        True,
    )
    confirm = f"/v1/statements/{sent.json['id']}/confirm"
    early = await client.post(confirm, REASON)
    assert (early.status, "this preview is waiting" in early.json["detail"]) == (400, True)
    assert await read_requested(resources)
    seen = (await client.get(f"/v1/statements/{sent.json['id']}")).json
    run = (await client.get(f"/v1/reconciliations/{seen['run_id']}")).json
    assert [(each["kind"], each["order_no"]) for each in run["differences"]] == [("paid_there_only", order_no)]

    assert (await client.post(confirm, {})).status == 400, "it wants a reason"
    confirmed = (await client.post(confirm, REASON)).json
    assert (confirmed["dry_run"], confirmed["reason"]) == (False, REASON["reason"])
    assert (await client.post(f"/v1/statements/{confirmed['id']}/confirm", REASON)).status == 404, "it is no preview"
    assert await read_requested(resources)
    assert (await client.get(f"/v1/statements/{confirmed['id']}")).json["status"] == "done"
    assert (await client.get(f"/v1/orders/{order_no}")).json["status"] == "paid"
    acts = {act.action: act for act in await list_acts(resources.db, limit=9)}
    assert acts["statement.upload"].detail == {"of": YESTERDAY.isoformat(), "bytes": len(content)}
    assert acts["statement.confirm"].detail["reason"] == REASON["reason"]


@pytest.mark.parametrize(
    ("address", "body", "status"),
    [
        (ADDRESS, b"", 400),
        ("/v1/days/main/2999-01-01/statement", b"x", 400),
        ("/v1/days/main/2026-99-01/statement", b"x", 404),
        (f"/v1/days/nobody/{YESTERDAY}/statement", b"x", 404),
        ("/v1/statements/999999/confirm", b'{"reason": "x"}', 404),
        ("/v1/statements/x/confirm", b'{"reason": "x"}', 404),
    ],
)
async def test_what_cannot_be_read_is_a_problem(
    client: Client, account: str, address: str, body: bytes, status: int
) -> None:
    assert account == "main"
    sent = await client.call("POST", address, body=body, headers={"content-type": "application/json"})
    assert sent.status == status, sent.body
