"""Days, statements, reconciliations, disputes and certificates in the console."""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from core.operators import Role
from flows.reconcile.requested import read_requested
from flows.reconcile.run import reconcile_day
from runtime.resources import Resources
from simulator.kernel.ledger import Key as LedgerKey
from storage.postgres.accounts import put_account
from storage.postgres.api_keys import create_api_key
from storage.postgres.audit import list_acts
from storage.postgres.reconciliation.runs import list_reconciliations
from tests.api.conftest import MERCHANT_ID, Channel, terms
from tests.api.console.conftest import ORIGIN, ConsoleClient, SignedIn
from tests.api.driver import Client, Response
from tests.channels.reports import Key
from tests.channels.wechatpay.driver import WechatPayDriver

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
DAY = f"/ops/days/main/{YESTERDAY}"
HEADER = "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"


async def paid_yesterday(client: Client, channel: Channel, account: str) -> str:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    number = str(placed["payments"][0]["out_trade_no"])
    noon = datetime.combine(YESTERDAY, datetime.min.time(), UTC) + timedelta(hours=12)
    channel.simulation.ledger.pay(LedgerKey(MERCHANT_ID, number), noon)
    return number


async def uploaded(console: ConsoleClient, content: bytes) -> Response:
    """Send a file as a browser does."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n{console.csrf}\r\n'.encode(),
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="bill.csv"\r\nContent-Type: text/csv\r\n\r\n',
        content,
        b"\r\n--b--\r\n",
    ]
    headers = {"content-type": "multipart/form-data; boundary=b", "origin": ORIGIN, **console.headers}
    return await console.client.call("POST", f"{DAY}/upload", body=b"".join(parts), headers=headers)


async def test_a_day_is_seen_signed_off_and_downloaded(
    signed_in: SignedIn, client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    await paid_yesterday(client, channel, account)
    await reconcile_day(resources, await resources.accounts.get(account), YESTERDAY)
    console = await signed_in(Role.OPERATOR)
    page = (await console.get(DAY)).body.decode()
    assert "¥88.88" in page
    assert ">read<" in page
    version = page.partition('name="version" value="')[2].partition('"')[0]
    stale = await console.post(f"{DAY}/sign-off", {"version": str(int(version) ^ 1), "reason": "it agrees"})
    assert stale.status == 409
    signed = await console.act(f"{DAY}/sign-off", {"version": version, "reason": "=all right"})
    assert b"is signed off" in signed.body
    listed = (await console.get("/ops/days?account=main")).body.decode()
    assert YESTERDAY.isoformat() in listed
    assert "by <bdi>operator</bdi>" in listed
    file = await console.get("/ops/days.csv?account=main")
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    row = file.body.decode("utf-8-sig").splitlines()[1]
    assert row.startswith(f'"{YESTERDAY}","main","CNY",1,88.88,0,0.00,0,0.00,,88.88,"read",1,88.88,0,0.00,0,0.00,0,0,')
    assert row.endswith('"operator","no","\'=all right"')
    assert [act.action for act in await list_acts(resources.db, limit=2)] == ["days.csv", "day.sign_off"]
    assert b"No days yet" in (await console.get("/ops/days?account=nobody")).body


async def test_a_file_is_uploaded_seen_and_done(
    signed_in: SignedIn, client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    number = await paid_yesterday(client, channel, account)
    console = await signed_in(Role.OPERATOR)
    content = f"{HEADER}payment,{number},t-1,,8888,CNY,{YESTERDAY}T12:00:00Z\n".encode()
    sent = await uploaded(console, content)
    assert (sent.status, sent.headers["location"]) == (303, DAY)
    waiting = (await console.get(DAY)).body.decode()
    assert "waiting for a worker" in waiting
    assert 'id="requests" data-address=' in waiting
    assert await read_requested(resources)
    part = (await console.get(f"{DAY}/requests")).body.decode()
    assert "<html" not in part
    assert "1 rows read." in part
    assert "paid there only: 1" in part
    confirm = part.partition('action="')[2].partition('"')[0]
    assert (await console.post(confirm, {})).status == 400, "it wants a reason"
    await console.act(confirm)
    assert await read_requested(resources)
    [run] = [run for run in await list_reconciliations(resources.db) if not run.dry_run]
    shown = (await console.get(f"/ops/reconciliation/{run.id}")).body.decode()
    assert "repaired: 1" in shown
    acts = await list_acts(resources.db, limit=9)
    assert [act.action for act in acts][:2] == ["statement.confirm", "statement.upload"]
    assert acts[0].detail["reason"] == "because of a test"


async def test_a_wrong_file_is_refused_on_the_page(signed_in: SignedIn, account: str, resources: Resources) -> None:
    assert account == "main"
    console = await signed_in(Role.OPERATOR)
    assert (await uploaded(console, b"")).status == 400
    assert (await uploaded(console, b"<html></html>")).status == 303
    assert await read_requested(resources)
    part = (await console.get(f"{DAY}/requests")).body.decode()
    assert "this looks like a web page" in part
    assert "/confirm" not in part
    assert (await console.post("/ops/statements/999999/confirm", {"reason": "x"})).status == 404


async def test_a_statement_is_fetched_again_as_a_preview(
    signed_in: SignedIn, client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    await paid_yesterday(client, channel, account)
    console = await signed_in(Role.OPERATOR)
    await console.act(f"{DAY}/read")
    assert await read_requested(resources)
    [run] = await list_reconciliations(resources.db)
    assert (run.dry_run, run.day) == (True, YESTERDAY)
    page = (await console.get(f"/ops/reconciliation/{run.id}?kind=paid_there_only")).body.decode()
    assert "open here" in page
    assert (
        "No differences of this kind" in (await console.get(f"/ops/reconciliation/{run.id}?kind=amount")).body.decode()
    )
    runs = (await console.get("/ops/reconciliation?account=main")).body.decode()
    assert f'href="/ops/reconciliation/{run.id}"' in runs
    file = await console.get(f"/ops/reconciliation/{run.id}/differences.csv")
    assert b"paid_there_only" in file.body
    viewer = await signed_in(Role.VIEWER)
    assert b"/upload" not in (await viewer.get(DAY)).body
    assert b".csv" not in (await viewer.get(f"/ops/reconciliation/{run.id}")).body
    assert (await viewer.get(f"/ops/reconciliation/{run.id}/differences.csv")).status == 403
    assert (await viewer.get("/ops/days.csv")).status == 200


async def test_a_difference_leads_to_its_case(
    signed_in: SignedIn, client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    number = await paid_yesterday(client, channel, account)
    console = await signed_in(Role.OPERATOR)
    line = f"payment,{number},,,8888,CNY,{YESTERDAY}T12:00:00Z\n"
    await uploaded(console, f"{HEADER}{line}{line}".encode())
    assert await read_requested(resources)
    part = (await console.get(f"{DAY}/requests")).body.decode()
    await console.act(part.partition('action="')[2].partition('"')[0])
    assert await read_requested(resources)
    [run] = [run for run in await list_reconciliations(resources.db) if not run.dry_run]
    case_id = await resources.db.fetchval("SELECT id FROM cases WHERE reason = 'statement_duplicate'")
    shown = (await console.get(f"/ops/reconciliation/{run.id}?kind=duplicate")).body.decode()
    assert f'<a href="/ops/cases/{case_id}">' in shown
    day = (await console.get(DAY)).body.decode()
    assert "1 open, 0 resolved" in day
    assert "differences are open" in day


async def test_days_and_runs_that_are_not_there_are_pages(signed_in: SignedIn, account: str) -> None:
    assert account == "main"
    console = await signed_in(Role.VIEWER)
    for address in (
        "/ops/days/main/2999-01-01",
        "/ops/days/main/x",
        f"/ops/days/nobody/{YESTERDAY}",
        "/ops/reconciliation/0",
        "/ops/reconciliation/999999",
    ):
        assert (await console.get(address)).status == 404, address


_DISPUTE = """
INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency, reason,
                      respond_by, opened_at, changed_at)
SELECT 'main', out_trade_no, $1, order_no, 'claim', $2, 100, 'CNY', '<b>late</b>', $3, now(), now() FROM payments"""


async def test_disputes_are_listed_with_what_is_left(
    signed_in: SignedIn, client: Client, channel: Channel, account: str, resources: Resources
) -> None:
    await paid_yesterday(client, channel, account)
    now = datetime.now(UTC)
    for id_, state, days in (("d-late", "open", -1), ("d-soon", "open", 2), ("d-won", "won", 1)):
        await resources.db.execute(_DISPUTE, id_, state, now + timedelta(days=days))
    console = await signed_in(Role.VIEWER)
    page = (await console.get("/ops/disputes")).body.decode()
    assert page.index("d-late") < page.index("d-soon")
    assert "overdue" in page
    assert "d-won" not in page
    assert "&lt;b&gt;late&lt;/b&gt;" in page
    assert "d-won" in (await console.get("/ops/disputes?state=won")).body.decode()
    assert (await console.get("/ops/disputes?state=open")).status == 400


async def test_keys_that_end_are_listed(signed_in: SignedIn, resources: Resources) -> None:
    key, text = await create_api_key(resources.db, "reports", expires_in_s=3 * 86_400.0)
    page = (await (await signed_in(Role.VIEWER)).get("/ops/certificates")).body.decode()
    assert key.id in page
    assert "ends within 7 days" in page
    assert text not in page


async def test_an_accounts_page_has_its_certificates(signed_in: SignedIn, resources: Resources) -> None:
    account = replace(WechatPayDriver().account("http://127.0.0.1:9", Key.OLD), name="wechat")
    await put_account(resources.db, resources.sealer, account)
    page = (await (await signed_in(Role.VIEWER)).get("/ops/accounts/wechat")).body.decode()
    assert "<code>credentials.platform_certificates[0]</code>" in page
    assert 'href="/ops/days?account=wechat"' in page
    assert "BEGIN" not in page
