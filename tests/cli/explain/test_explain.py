"""`nodrop explain` on what each channel sends, signed with keys that are made here and now."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import replace

from channels.adapters import ADAPTERS, open_channel
from channels.base import Channel as Adapter
from channels.base import Create
from channels.transport import Transport
from cli.explain import text
from core.account import AccountConfig
from core.evidence import EvidenceKind
from core.order import Payment
from runtime.resources import Resources
from simulator.kernel.base import Account as FarAccount
from simulator.kernel.faults import AtFault
from simulator.kernel.ledger import Key as LedgerKey
from simulator.kernel.simulation import Simulation
from simulator.servers import serve_channels
from storage.postgres.accounts import put_account
from storage.sealing import Sealer
from tests.channels.conftest import DRIVERS
from tests.channels.driver import Driver
from tests.channels.reports import AMOUNT, NUMBER, OTHER_NUMBER, CallbackRequest, Key, PaymentReport
from tests.cli.conftest import Channel, Place
from tests.cli.explain.case import AT, Case, account_toml, secrets_in
from tests.cli.nodrop import Nodrop, Ran

SIGNING = [driver for driver in DRIVERS if driver.channel != "paypal"]
"""PayPal's certificate has to be fetched, so its callbacks have tests of their own."""

ANSWERING = [driver for driver in DRIVERS if driver.channel != "sandbox"]
"""The sandbox's answers are bound to their questions, and cannot be verified alone."""


@pytest.fixture(params=SIGNING, ids=lambda driver: driver.channel)
def case(request: pytest.FixtureRequest, tmp_path: Path, bare: Nodrop) -> Case:
    return Case(tmp_path, bare, request.param)


@pytest.fixture(params=ANSWERING, ids=lambda driver: driver.channel)
def queried(request: pytest.FixtureRequest, tmp_path: Path, bare: Nodrop) -> Case:
    return Case(tmp_path, bare, request.param)


@pytest.fixture
def sandbox(tmp_path: Path, bare: Nodrop) -> Case:
    return Case(tmp_path, bare, driver_of("sandbox"))


def driver_of(channel: str) -> Driver:
    return next(driver for driver in DRIVERS if driver.channel == channel)


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_a_genuine_callback_of_the_order_is_paid_and_shows_what_was_signed(case: Case) -> None:
    ran = await case.callback(case.sent(), *case.order())
    assert ran.code == 0, ran
    explanation = ran.json
    assert (explanation["verdict"], explanation["reason"]) == ("paid", "")
    assert (explanation["out_trade_no"], explanation["amount_minor"]) == (NUMBER, AMOUNT)
    assert explanation["currency"] == case.driver.payment().currency
    assert explanation["channel_transaction_id"]
    good = [check for check in explanation["checks"] if check["good"]]
    assert good
    assert good[0]["string"]
    assert good[0]["encoding"] in ("text", "base64")


async def test_a_callback_of_another_amount_or_number_is_a_mismatch(case: Case) -> None:
    for order, reason in (
        ({"amount": AMOUNT + 1}, "amount_mismatch"),
        ({"out_trade_no": OTHER_NUMBER}, "number_mismatch"),
    ):
        ran = await case.callback(case.sent(), *case.order(**order))
        assert (ran.code, ran.json["verdict"]) == (4, "mismatch"), ran
        assert ran.json["reason"].startswith(reason)
        assert ran.json["amount_minor"] == AMOUNT


async def test_a_forged_callback_is_rejected_with_the_string_that_did_not_verify(case: Case) -> None:
    ran = await case.callback(case.sent(key=Key.STRANGER), *case.order())
    assert ran.code == 3, ran
    explanation = ran.json
    assert (explanation["verdict"], explanation["reason"], explanation["amount_minor"]) == ("rejected", "forged", None)
    assert explanation["checks"]
    assert not any(check["good"] for check in explanation["checks"])


async def test_no_secret_is_shown_whatever_comes_of_it(case: Case) -> None:
    """Also when the secrets stand in what was sent, and in the headers that a client put there."""
    secrets = secrets_in(case.account.credentials)
    assert secrets
    sent = case.sent()
    leaky = sent._replace(
        headers=sent.headers | {"authorization": "Bearer canary-1", "x-token": "canary-2"},
        body=sent.body + "\n".join(secrets).encode(),
    )
    for attempt in (sent, leaky):
        for as_json in (True, False):
            ran = await case.callback(attempt, *case.order(), as_json=as_json)
            shown = ran.out + ran.err
            assert not [secret for secret in (*secrets, "canary-") if secret in shown], (attempt is leaky, as_json)


async def test_a_stale_callback_says_whether_that_is_because_of_at(sandbox: Case) -> None:
    now = datetime.now(UTC)
    ran = await sandbox.callback(sandbox.sent(at=now), at=now + timedelta(days=1))
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (3, "rejected", "stale")
    assert any("only because of --at" in note for note in ran.json["notes"])
    ran = await sandbox.callback(sandbox.sent(at=AT), at=None)
    assert (ran.code, ran.json["reason"]) == (3, "stale")
    assert any("--at says when" in note for note in ran.json["notes"])
    assert (await sandbox.callback(sandbox.sent(at=now), at=None)).code == 0


async def test_the_line_break_that_an_editor_added_is_found(sandbox: Case) -> None:
    sent = sandbox.sent()
    ran = await sandbox.callback(sent._replace(body=sent.body + b"\n"))
    assert (ran.code, ran.json["reason"]) == (3, "forged")
    assert any("line break" in note for note in ran.json["notes"])


async def test_genuine_nonsense_is_unreadable(sandbox: Case) -> None:
    driver = sandbox.driver
    sent = driver.sign_callback(b"[]", driver.notification_id, at=AT.timestamp())
    ran = await sandbox.callback(sent)
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (0, "unclear", "unreadable")
    assert ran.json["checks"][0]["good"]
    assert any("stored" in note for note in ran.json["notes"])


async def test_a_genuine_callback_about_no_money_says_so(sandbox: Case) -> None:
    driver = sandbox.driver
    for callback in driver.unrelated(at=AT.timestamp()).values():
        ran = await sandbox.callback(callback)
        assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (0, "unclear", "no_payment")


async def test_a_merchant_that_is_not_the_accounts_is_a_mismatch_without_an_order_too(sandbox: Case) -> None:
    ran = await sandbox.callback(sandbox.sent(PaymentReport(merchant="m-2002")))
    assert (ran.code, ran.json["verdict"]) == (4, "mismatch")
    assert ran.json["reason"].startswith("account_mismatch")


async def test_a_refund_says_how_much_was_given_back(sandbox: Case) -> None:
    ran = await sandbox.callback(sandbox.sent(PaymentReport(status="refunded", refunded=1000)))
    assert (ran.code, ran.json["verdict"], ran.json["refunded_amount"]) == (0, "refunded", 1000)


async def test_a_certificate_that_cannot_be_fetched_is_named(tmp_path: Path, bare: Nodrop) -> None:
    case = Case(tmp_path, bare, driver_of("paypal"))
    ran = await case.callback(case.sent(), *case.order())
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (3, "rejected", "not_verifiable")
    assert any("certificate" in note for note in ran.json["notes"])


async def test_people_read_the_verdict_and_the_very_string(sandbox: Case) -> None:
    ran = await sandbox.callback(sandbox.sent(), *sandbox.order(), as_json=False)
    assert ran.code == 0
    assert ran.out.startswith("paid: paid\n")
    assert "88.88 CNY" in ran.out
    assert f"    CALLBACK\\n\n    {int(AT.timestamp())}\\n\n" in ran.out
    assert "HMAC-SHA256 with k2: good" in ran.out
    ran = await sandbox.callback(sandbox.sent()._replace(headers={"x-a": "b\x1b[31m"}), as_json=False)
    assert "no signature was checked" in ran.out
    assert "x-a: b" in ran.out
    assert "\x1b" not in ran.out


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_a_genuine_answer_is_evidence_with_and_without_an_order(queried: Case) -> None:
    reference = queried.driver.payment().channel_reference
    answered = queried.answered(PaymentReport(status="unpaid"))
    ran = await queried.answer(answered)
    assert (ran.code, ran.json["verdict"]) == (0, "unpaid"), ran
    assert ran.json["out_trade_no"] == NUMBER
    more = {"channel_reference": reference} if reference else {}
    ran = await queried.answer(answered, *queried.order(**more))
    assert (ran.code, ran.json["verdict"]) == (0, "unpaid"), ran
    assert any(check["good"] for check in ran.json["checks"]) is queried.driver.responses_are_signed


async def test_an_answer_about_other_money_is_a_mismatch(queried: Case) -> None:
    reference = queried.driver.payment().channel_reference
    ran = await queried.answer(queried.answered(), *queried.order(amount=AMOUNT + 1, channel_reference=reference))
    assert (ran.code, ran.json["verdict"], ran.json["amount_minor"]) == (4, "mismatch", AMOUNT), ran
    assert ran.json["reason"].startswith("amount_mismatch")


async def test_an_answer_that_a_stranger_signed_is_rejected(queried: Case) -> None:
    if not queried.driver.responses_are_signed:
        pytest.skip("only TLS says who answers")
    ran = await queried.answer(queried.answered(key=Key.STRANGER), *queried.order())
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (3, "rejected", "unreadable")
    assert not any(check["good"] for check in ran.json["checks"])


async def test_an_answer_of_the_sandbox_cannot_be_verified_without_its_question(sandbox: Case) -> None:
    ran = await sandbox.answer(sandbox.answered())
    assert (ran.code, ran.json["detail"]) == (3, "answer_bound_to_its_question")


async def test_a_broken_channels_answer_says_nothing(queried: Case) -> None:
    ran = await queried.answer(queried.answered(), "--status", "503")
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (0, "unclear", "status_503")


# -- what the simulated channels send ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ADAPTERS))
async def test_what_a_channel_sends_of_a_payment_is_paid(name: str, tmp_path: Path, bare: Nodrop) -> None:
    """Created, paid and called back over HTTP, with a certificate fetched where the channel has one to fetch."""
    async with serve_channels(seed=7) as (_, far_side), Transport(timeout_s=60) as transport:
        opened = far_side.channels[name].open_account("main", "http://127.0.0.1:9/callbacks/main")
        far_side.accounts[opened.account.merchant_id] = opened.account
        url = far_side.urls[name]
        account = AccountConfig(name="main", channel=name, base_url=url, credentials=opened.credentials)
        row = await paid_at(far_side, open_channel(account, transport), opened.account, driver_of(name).payment())
        paid = far_side.ledger.find(LedgerKey(opened.account.merchant_id, NUMBER), far_side.now())
        assert paid is not None
        now = far_side.now()
        told_by = far_side.accounts[opened.account.merchant_id]
        message = far_side.channels[name].callback(far_side.paid_event(paid), told_by, now, far_side.pay_url(paid))
        assert message is not None
        case = Case(tmp_path, bare, driver_of(name))
        case.put("accounts.toml", account_toml(account, "main"))
        order = case.order(amount=row.amount, currency=row.currency)
        ran = await case.callback(CallbackRequest(message.headers, message.body), *order, at=now)
    assert (ran.code, ran.json["verdict"]) == (0, "paid"), ran.out
    assert ran.json["is_hint"] is not case.driver.signs_whole_body
    assert any("hint" in note for note in ran.json["notes"]) is ran.json["is_hint"]


async def paid_at(far_side: Simulation, channel: Adapter, account: FarAccount, row: Payment) -> Payment:
    """The buyer has paid a payment that was created for this; its row."""
    row = replace(row, payable_until=datetime.now(UTC) + timedelta(hours=2), channel_reference=None)
    wanted = Create(
        payment=row,
        subject="Tea",
        callback_url="http://127.0.0.1:9/callbacks/main",
        return_url="http://127.0.0.1:9/o/token/return",
    )
    created = await channel.create_payment(wanted)
    row = replace(row, channel_reference=created.channel_reference)
    key = LedgerKey(account.merchant_id, row.out_trade_no)
    far_side.open(key)
    far_side.pay(key, AtFault(callback="lost"))
    if far_side.channels[account.channel].needs_capture:
        await channel.capture_payment(row)
    return row


# -- what it is given --------------------------------------------------------------------------------------------------


async def test_a_single_account_file_serves_for_any_name(sandbox: Case) -> None:
    path = sandbox.put("single.toml", account_toml(sandbox.account))
    assert (await sandbox.callback(sandbox.sent(), "--accounts", path)).json["verdict"] == "paid"


async def test_an_amount_may_be_called_by_its_unit(sandbox: Case) -> None:
    path = sandbox.put(
        "minor.json", {"out_trade_no": NUMBER, "amount_minor": AMOUNT, "currency": "CNY", "status": "paying"}
    )
    assert (await sandbox.callback(sandbox.sent(), "--order", path)).code == 0


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("[]", "an order is a JSON object"),
        ("{", "an order is a JSON object"),
        ({"amount": 1, "currency": "CNY"}, "out_trade_no is missing"),
        ({"out_trade_no": NUMBER, "currency": "CNY"}, "amount is missing"),
        ({"out_trade_no": NUMBER, "amount": "88.88", "currency": "CNY"}, "amount is not the amount in minor units"),
        ({"out_trade_no": NUMBER, "amount": True, "currency": "CNY"}, "amount is not"),
        ({"out_trade_no": NUMBER, "amount": 88.5, "currency": "CNY"}, "amount is not"),
        ({"out_trade_no": NUMBER, "amount": 1, "amount_minor": 2, "currency": "CNY"}, "are two names of one thing"),
        ({"out_trade_no": NUMBER, "amount": 1, "currency": "cny"}, "currency is not three capital letters"),
        ({"out_trade_no": "a b", "amount": 1, "currency": "CNY"}, "out_trade_no is not our number"),
    ],
    ids=str,
)
async def test_what_is_wrong_with_an_order_is_said_of_its_key(sandbox: Case, order: object, says: str) -> None:
    ran = await sandbox.callback(sandbox.sent(), "--order", sandbox.put("order.json", order))
    assert ran.code == 2
    assert says in ran.line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--at", "yesterday"), "--at: a time is"),
        (("--at", "2026-11-23T04:00:00"), "--at: a time is"),
        (("--accounts", "nowhere.toml"), "No such file"),
        (("--order", "nowhere.json"), "No such file"),
        (("--body", "nowhere"), "No such file"),
        (("--account", "other"), "there is no account other in it; there is: main"),
        (("--account", "Other"), "--account: a-z"),
        (("--order", "-", "--body", "-"), "- is standard input"),
    ],
    ids=str,
)
async def test_wrong_use_is_one_line(sandbox: Case, arguments: tuple[str, ...], says: str) -> None:
    ran = await sandbox.callback(sandbox.sent(), *arguments, at=None)
    assert ran.code in (1, 2)
    assert says in ran.line


@pytest.mark.parametrize("headers", ["[]", '{"a": 1}', "\xff", '{"A": "1", "a": "2"}'])
async def test_headers_that_are_none_are_refused(sandbox: Case, headers: str) -> None:
    path = sandbox.put("wrong.json", headers.encode("latin-1"))
    ran = await sandbox.callback(sandbox.sent(), "--headers", path)
    assert ran.code == 2
    assert "header" in ran.line


async def test_unix_seconds_are_a_time_too(sandbox: Case) -> None:
    ran = await sandbox.callback(sandbox.sent(), "--at", str(int(AT.timestamp())), at=None)
    assert ran.json["verdict"] == "paid"


# -- with a database ---------------------------------------------------------------------------------------------------


async def test_the_payment_is_looked_up_by_account_and_number(
    nodrop: Nodrop, resources: Resources, place: Place, channel: Channel, tmp_path: Path
) -> None:
    """And the account too, whose merchant's second key signs here what the channel would send."""
    number = (await place("E-1")).payments[0].out_trade_no
    case = Case(tmp_path, nodrop, driver_of("sandbox"))
    keys = {"k1": channel.secret, "k2": case.account.credentials["keys"]["k2"]}
    stored = replace(case.account, credentials=case.account.credentials | {"keys": keys})
    await put_account(resources.db, Sealer.from_setting(resources.settings.nodrop_master_keys), stored)

    async def explain(report: PaymentReport, *, account: str = "main") -> Ran:
        sent = case.sent(report)
        files = ("--headers", case.put("headers.json", sent.headers), "--body", case.put("body", sent.body))
        at = ("--at", AT.isoformat())
        return await nodrop("explain", "callback", "--account", account, *files, *at, "--json")

    ran = await explain(PaymentReport(number=number))
    assert (ran.code, ran.json["verdict"], ran.json["order_no"]) == (0, "paid", "E-1"), ran
    ran = await explain(PaymentReport(number=number, amount=1))
    assert (ran.code, ran.json["verdict"]) == (4, "mismatch")
    ran = await explain(PaymentReport(number=OTHER_NUMBER))
    assert (ran.code, ran.json["verdict"], ran.json["order_no"]) == (0, "paid", None)
    assert any("no payment with this number" in note for note in ran.json["notes"])
    ran = await explain(PaymentReport(number=number), account="none")
    assert (ran.code, ran.line.startswith("there is no account none")) == (1, True)
    assert (await nodrop("orders", "show", "E-1", "--json")).json["order"]["status"] == "paying", "nothing was changed"


def test_every_kind_of_evidence_has_words() -> None:
    """A dispute had none, and broke the command."""
    assert {*get_args(EvidenceKind), "rejected", "mismatch"} <= text._SAYS.keys()
