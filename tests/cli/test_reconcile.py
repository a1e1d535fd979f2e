"""`nodrop reconcile`: its output, its exit codes, and its messages about wrong input."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGKILL

import msgspec
import pytest
from msgspec.structs import replace

from api.v1.schemas import OrderInput
from core.order import OrderState
from runtime.resources import Resources
from simulator.kernel.ledger import Key
from storage.postgres.accounts import put_account
from storage.postgres.orders import find_state
from storage.sealing import Sealer
from tests.channels.wechatpay.driver import WechatPayDriver
from tests.cli.conftest import MERCHANT_ID, Channel, Place
from tests.cli.nodrop import Nodrop
from tests.servers import eventually

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
HEADER = "type,out_trade_no,transaction_id,refund_no,amount,currency,at\n"


async def paid_yesterday(channel: Channel, state: OrderState) -> str:
    """The buyer paid, and no callback came."""
    number = state.payments[0].out_trade_no
    noon = datetime.combine(YESTERDAY, datetime.min.time(), UTC) + timedelta(hours=12)
    channel.far_side.ledger.pay(Key(MERCHANT_ID, number), noon)
    return number


async def test_yesterday_is_reconciled_and_nothing_is_left_to_do(
    nodrop: Nodrop, channel: Channel, place: Place, resources: Resources
) -> None:
    await paid_yesterday(channel, await place("A-1"))
    ran = await nodrop("reconcile", "--account", "main")
    assert ran.code == 0, ran
    assert f"over {YESTERDAY}: 1 rows" in ran.out
    assert "repaired" in ran.out
    assert "1/1" in ran.err, "progress is on standard error"
    state = await find_state(resources.db, "A-1")
    assert state is not None
    assert state.order.status == "paid"

    again = await nodrop("reconcile", "--account", "main", "--date", YESTERDAY.isoformat(), "--json")

    assert (again.code, again.json["run"]["counts"]["agrees"]) == (0, 1)
    listed = (await nodrop("reconciliations", "list", "--json")).json
    assert [run["counts"].get("repaired", 0) for run in listed] == [0, 1]
    assert "2026" in (await nodrop("reconciliations", "list")).out


async def test_differences_end_in_exit_code_3_and_are_listed_with_a_bound(
    nodrop: Nodrop, channel: Channel, place: Place, tmp_path: Path
) -> None:
    number = await paid_yesterday(channel, await place("A-1"))
    assert (await nodrop("reconcile", "--account", "main")).code == 0
    line = f"payment,{number},,,{{}},CNY,{YESTERDAY}T12:00:00Z\n"
    file = tmp_path / "statement.csv"
    file.write_text(HEADER + line.format(8888) + line.format(8888) * 21 + "payment,cut off\n")

    ran = await nodrop("reconcile", "--account", "main", str(file))

    assert ran.code == 3
    assert ran.out.count("stands there twice") == 20
    assert "there are more than these 20: --all" in ran.err
    run_id = (await nodrop("reconciliations", "list", "--limit", "1", "--json")).json[0]["id"]
    shown = await nodrop("reconciliations", "show", str(run_id), "--all")
    assert shown.out.count("stands there twice") == 21
    assert "malformed" in shown.out
    cases = (await nodrop("cases", "list", "--json")).json
    assert sorted(case["reason"] for case in cases) == ["statement_duplicate", "statement_malformed"]


async def test_a_refused_file_is_named_with_what_would_be_taken(nodrop: Nodrop, place: Place, tmp_path: Path) -> None:
    await place("A-1")
    file = tmp_path / "bill.csv"
    file.write_text("\ufeff交易时间,公众账号ID,商户号\r\n")
    ran = await nodrop("reconcile", "--account", "main", str(file))
    assert ran.code == 1
    assert "this looks like WeChat Pay's trade bill" in ran.err
    assert "what is read is the sandbox's CSV" in ran.err


async def test_a_run_over_an_incomplete_statement_is_shown_and_fails(
    nodrop: Nodrop, resources: Resources, environ: dict[str, str], tmp_path: Path
) -> None:
    """WeChat Pay's bill counts two rows, and one of them cannot be read."""
    assert (await nodrop("migrate")).code == 0
    driver = WechatPayDriver()
    account = replace(driver.account("http://127.0.0.1:9"), name="wechat")
    await put_account(resources.db, Sealer.from_setting(environ["NODROP_MASTER_KEYS"]), account)
    file = tmp_path / "bill.csv"
    file.write_bytes(driver.statement.replace(b"`88.88,", b"`88,88,", 1))

    ran = await nodrop("reconcile", "--account", "wechat", str(file))

    assert ran.code == 1
    assert "总交易单数: 2 stated, 1 read" in ran.out
    assert "states other totals than its rows have" in ran.err
    assert "Traceback" not in ran.err
    listed = await nodrop("reconciliations", "list")
    assert "failed: the statement states other totals" in listed.out


async def test_a_dry_run_changes_nothing(nodrop: Nodrop, channel: Channel, place: Place, resources: Resources) -> None:
    await paid_yesterday(channel, await place("A-1"))
    ran = await nodrop("reconcile", "--account", "main", "--dry-run")
    assert ran.code == 3
    assert "(dry run)" in ran.out
    assert "paid_there_only" in ran.out
    state = await find_state(resources.db, "A-1")
    assert state is not None
    assert state.order.status == "paying"
    assert (await nodrop("cases", "list", "--json")).json == []


async def test_unknown_payments_are_written_as_orders_to_watch(
    nodrop: Nodrop, channel: Channel, place: Place, tmp_path: Path
) -> None:
    """As POST /v1/orders takes them; what could not be one is counted alone."""
    await place("A-1")
    rows = ("payment,elsewhere-1,t-1,,500,CNY", "payment,odd|number,t-2,,500,CNY", "refund,elsewhere-1,t-1,r,5,CNY")
    file, unknown = tmp_path / "statement.csv", tmp_path / "unknown.jsonl"
    file.write_text(HEADER + "".join(f"{row},{YESTERDAY}T12:00:00Z\n" for row in rows))

    ran = await nodrop("reconcile", "--account", "main", str(file), "--unknown", str(unknown), "--json")

    assert (ran.code, ran.json["run"]["counts"]["unknown"]) == (0, 3)
    [line] = unknown.read_bytes().splitlines()
    order = msgspec.json.decode(line, type=OrderInput)
    assert (order.account, order.amount, order.currency) == ("main", 500, "CNY")
    assert order.watch is not None
    assert order.watch.out_trade_no == "elsewhere-1"
    assert [order["order_no"] for order in (await nodrop("orders", "list", "--json")).json] == ["A-1"]


async def test_what_was_killed_is_carried_on(
    nodrop: Nodrop, channel: Channel, place: Place, resources: Resources, tmp_path: Path
) -> None:
    """By the same command, which waits for the lease of the one that was killed."""
    await paid_yesterday(channel, await place("A-1"))
    await channel.faults(affected=["query"], timed_out=1.0)
    argv = ("reconcile", "--account", "main", "--date", YESTERDAY.isoformat())
    process = await nodrop.start(*argv, env={"LEASE_S": "3"})
    await eventually(lambda: channel.far_side.traffic.counters["calls_query"])
    process.kill()
    assert await process.wait() == -SIGKILL
    await channel.faults()

    ran = await nodrop(*argv, "--json", env={"LEASE_S": "3"})

    assert (ran.code, ran.json["run"]["counts"]["repaired"]) == (0, 1)
    assert await resources.db.fetchval("SELECT count(*) FROM reconciliations") == 1


async def test_two_at_once_are_refused(nodrop: Nodrop, channel: Channel, place: Place, resources: Resources) -> None:
    await place("A-1")
    sql = """INSERT INTO reconciliations (channel_account, day, dry_run, leased_until)
             VALUES ('main', $1, false, now() + interval '1 h')"""
    await resources.db.execute(sql, YESTERDAY)
    ran = await nodrop("reconcile", "--account", "main", env={"LEASE_S": "0.5"})
    assert ran.code == 1
    assert "another process is reconciling this very statement" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--date", "2999-01-01"), 2, "has not come yet"),
        (("--date", "22.11.2026"), 2, "does not match the format '%Y-%m-%d'"),
        (("--date", "2026-11-22", __file__), 2, "give --date or FILE"),
        (("no-such-file",), 2, "does not exist"),
        ((__file__,), 1, "is not of the form of channel sandbox"),
    ],
)
async def test_wrong_input_is_named(
    nodrop: Nodrop, place: Place, arguments: tuple[str, ...], code: int, message: str
) -> None:
    await place("A-1")
    ran = await nodrop("reconcile", "--account", "main", *arguments)
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert "Traceback" not in ran.err


async def test_an_empty_file_and_an_unknown_account_are_named(nodrop: Nodrop, place: Place, tmp_path: Path) -> None:
    await place("A-1")
    (tmp_path / "empty.csv").touch()
    ran = await nodrop("reconcile", "--account", "main", str(tmp_path / "empty.csv"))
    assert (ran.code, "is empty" in ran.line) == (2, True)
    ran = await nodrop("reconcile", "--account", "other")
    assert (ran.code, ran.line) == (1, "there is no account other")


async def test_a_run_that_is_not_there(nodrop: Nodrop, resources: Resources) -> None:
    ran = await nodrop("reconciliations", "show", "99")
    assert (ran.code, "there is no run 99" in ran.line) == (1, True)
    assert (await nodrop("reconciliations", "list")).out == "no runs yet\n"
