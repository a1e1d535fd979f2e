"""The control API: who may use it, and what it tells."""

import httpx
import msgspec
import pytest

from simulator.kernel.faults import FaultProfile
from tests.simulator.conftest import Channel, Receiver, until
from tests.simulator.sandbox_client import ACCOUNT, SECRET

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    "headers",
    [{"host": "sandbox.example"}, {"host": "192.0.2.1:80"}, {"origin": "http://127.0.0.1"}, {"origin": "null"}],
)
async def test_control_refuses_browsers_and_other_names(channel: Channel, headers: dict[str, str]) -> None:
    """A page in somebody's browser reaches loopback too, but not without an Origin or a name of its own."""
    response = await channel.http.post(f"{channel.url}/control/reset", headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "LOOPBACK_ONLY")


async def test_health_is_shown(channel: Channel) -> None:
    channels = ["alipay", "paypal", "sandbox", "stripe", "wechatpay"]
    assert (await channel.http.get(f"{channel.url}/healthz")).json() == {"status": "ok", "channels": channels}


async def test_profile_is_replaced_as_a_whole_while_it_runs(channel: Channel) -> None:
    await channel.faults(lost=0.5, down=True)
    assert (await channel.http.get(f"{channel.url}/healthz")).status_code == 200
    await channel.faults(late=0.25)
    text = (await channel.http.get(f"{channel.url}/control/faults")).content
    assert msgspec.json.decode(text, type=FaultProfile) == FaultProfile(late=0.25)


@pytest.mark.parametrize("wrong", [b"", b"{", b'{"lots":1}', b'{"lost":2}', b"[]"])
async def test_bad_profile_changes_nothing(channel: Channel, wrong: bytes) -> None:
    await channel.faults(late=0.25)
    assert (await channel.http.put(f"{channel.url}/control/faults", content=wrong)).status_code == 400
    assert channel.simulation.faults.profile == FaultProfile(late=0.25)


@pytest.mark.parametrize(
    "change",
    [{"keys": {}}, {"keys": {"k": "short"}}, {"merchant_id": "a b"}, {"channel": "unheard-of"}, {"more": 1}],
)
async def test_account_that_cannot_work_is_refused(channel: Channel, change: dict[str, object]) -> None:
    response = await channel.http.put(f"{channel.url}/control/accounts", json=[ACCOUNT | change])
    assert response.status_code == 400
    assert SECRET not in response.text


async def test_secrets_are_never_shown(
    channel: Channel, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = [await channel.http.put(f"{channel.url}/control/accounts", json=[ACCOUNT])]
    await channel.api.create("number-1", callback_url=receiver.url)
    await channel.pay("number-1")
    await until(lambda: receiver.requests)
    responses += [
        await channel.http.get(f"{channel.url}/control/{path}") for path in ("ledger", "counters", "arrivals", "faults")
    ]
    text = "".join(response.text for response in responses) + capsys.readouterr().out
    assert "number-1" in text
    assert not [secret for secret in ACCOUNT["keys"].values() if secret in text]  # type: ignore[attr-defined]


async def test_ledger_tells_everything_of_a_payment(channel: Channel, receiver: Receiver) -> None:
    await channel.api.create("number-1", callback_url=receiver.url)
    await channel.api.create("number-2", currency="USD")
    await channel.pay("number-1")
    await channel.api.refund("number-1", "refund-1", 88)
    await until(lambda: channel.tally("number-1").acknowledged == 2)
    ledger = await channel.ledger()
    first = ledger.payments[0]
    assert (first.account, first.status, first.refunded_amount) == ("main", "refunded", 88)
    assert (first.callbacks.sent, first.callbacks.acknowledged) == (2, 2)
    assert [(total.currency, total.paid_count, total.paid, total.refunded) for total in ledger.totals] == [
        ("CNY", 1, 8888, 88),
        ("USD", 0, 0, 0),
    ]
    assert [(refund.account, refund.amount) for refund in ledger.refunds] == [("main", 88)]


async def test_ledger_can_be_read_in_pages(channel: Channel) -> None:
    for n in range(5):
        await channel.api.create(f"number-{n}")
    page = (await channel.http.get(f"{channel.url}/control/ledger?offset=1&limit=2")).json()
    assert [row["out_trade_no"] for row in page["payments"]] == ["number-1", "number-2"]
    assert page["payments_total"] == 5
    assert (await channel.http.get(f"{channel.url}/control/ledger?limit=x")).status_code == 400


async def test_paying_the_unknown_and_the_ambiguous_is_refused(channel: Channel, http: httpx.AsyncClient) -> None:
    assert (await channel.pay("number-1")).status_code == 404
    await channel.api.create("number-1")
    other = ACCOUNT | {"name": "other", "merchant_id": "m-2002"}
    await http.put(f"{channel.url}/control/accounts", json=[other])
    simulation = channel.simulation
    terms = next(simulation.ledger.payments(simulation.now())).terms
    simulation.ledger.create("m-2002", terms, simulation.now())
    try:
        assert (await channel.pay("number-1")).status_code == 409
        chosen = await http.post(f"{channel.url}/control/payments/number-1/pay?merchant_id=m-2002")
        assert chosen.json()["status"] == "paid"
        assert [row.status for row in (await channel.ledger()).payments] == ["unpaid", "paid"]
    finally:
        await http.post(f"{channel.url}/control/reset")
        del channel.simulation.accounts["m-2002"]


async def test_the_merchant_refunds_in_the_console(channel: Channel) -> None:
    """In parts, each under another number; no more than there is, and nothing of an unpaid payment."""
    await channel.api.create("number-1")
    url = f"{channel.url}/control/payments/number-1/refund"
    assert (await channel.http.post(url)).status_code == 409
    await channel.pay("number-1")
    part, rest = [(await channel.http.post(url, json=body)).json() for body in ({"amount": 100}, {})]
    paid = await channel.payment("number-1")
    assert (part["amount"], rest["amount"], paid.refunded_amount) == (100, paid.amount - 100, paid.amount)
    assert part["refund_no"] != rest["refund_no"]
    assert [refund.in_console for refund in (await channel.ledger()).refunds] == [True, True]
    assert (await channel.http.post(url, json={"amount": 1})).status_code == 409


@pytest.mark.parametrize(("in_part", "left"), [(0, 0), (1, 4444)])
async def test_by_a_fault_the_merchant_refunds_before_anybody_asks(channel: Channel, in_part: int, left: int) -> None:
    await channel.faults(refunded_in_console=1, refunded_in_part=in_part)
    await channel.api.create("number-1")
    await channel.pay("number-1")
    paid = await channel.payment("number-1")
    assert (paid.status, paid.amount - paid.refunded_amount) == ("refunded", left)
    [refund] = (await channel.ledger()).refunds
    assert (refund.in_console, refund.refunded_at) == (True, paid.paid_at)


async def test_reset_forgets_all_but_the_accounts(channel: Channel, receiver: Receiver) -> None:
    await channel.faults(late=1, late_s=60)
    await channel.api.create("number-1", callback_url=receiver.url)
    await channel.pay("number-1")
    late = channel.simulation.sender._timers
    assert len(late) == 1
    response = await channel.http.post(f"{channel.url}/control/reset", json={"seed": 99})
    assert response.json() == {"seed": 99}
    assert len(late) == 0
    ledger = await channel.ledger()
    assert (ledger.payments, ledger.acknowledged) == ((), ())
    assert channel.simulation.faults.profile == FaultProfile()
    await channel.api.create("number-2", callback_url=receiver.url)
    await channel.pay("number-2")
    await until(lambda: receiver.requests)
    assert receiver.numbers() == ["number-2"]


async def test_counters_count(channel: Channel) -> None:
    await channel.api.create("number-1")
    await channel.faults(cut=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await channel.api.query("number-1")
    counters = (await channel.http.get(f"{channel.url}/control/counters")).json()
    assert (counters["calls_create"], counters["calls_query"], counters["faults_cut"]) == (1, 1, 1)
