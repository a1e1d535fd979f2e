import re
from datetime import UTC, datetime
from functools import partial, partialmethod

import click
import pytest
from click.testing import CliRunner

from cli.spans import Since
from core.evidence import Paid, Source
from core.lifecycle import LatePolicy, Rules, on_callback
from core.order import OrderState
from flows.close import request_close
from flows.commit import commit_decision
from flows.refresh import refresh_order
from runtime.resources import Resources
from simulator.kernel.ledger import Key
from tests.cli.conftest import MERCHANT_ID, Channel, Place
from tests.cli.nodrop import Nodrop

_AGE = "UPDATE orders SET version = version + 1, created_at = created_at - interval '3 h' WHERE order_no = $1"


def number_of(state: OrderState) -> str:
    return state.payments[0].out_trade_no


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_orders_are_listed_newest_first_and_more_is_reported(nodrop: Nodrop, place: Place) -> None:
    for order_no in ("A-1", "A-2", "A-3"):
        await place(order_no)
    ran = await nodrop("orders", "list", "--limit", "2")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["ORDER", "A-3", "A-2"]
    assert "there are more than these 2" in ran.err


async def test_orders_are_found_by_status_account_and_age(nodrop: Nodrop, place: Place, resources: Resources) -> None:
    await place("A-1")
    await place("A-2")
    await resources.db.execute(_AGE, "A-1")

    async def listed(*options: str) -> list[str]:
        return [order["order_no"] for order in (await nodrop("orders", "list", "--json", *options)).json]

    assert await listed() == ["A-2", "A-1"]
    assert await listed("--status", "paying", "--account", "main", "--since", "2h") == ["A-2"]
    assert await listed("--status", "paid") == await listed("--account", "other") == []


async def test_an_order_is_shown_with_all_that_is_known_of_it(nodrop: Nodrop, place: Place) -> None:
    state = await place("A-1", "茶 \u202eevil", notify_url="https://shop.test/n")
    shown = await nodrop("orders", "show", "A-1")
    assert shown.code == 0
    for text in (
        "A-1",
        "88.88 CNY",
        "茶 \ufffdevil",
        "paying (its page says processing)",
        f"http://127.0.0.1:8000/o/{state.order.page_token}",
        number_of(state),
        "Query 1 of main",
        "Closed unless paid",
        "The buyer may pay at main",
        "open cases: none",
        "Placed: 88.88 CNY",
        "The link of main was given out",
    ):
        assert text in shown.out, text
    titles = [line.split(":")[0] for line in shown.out.splitlines() if line and not line.startswith((" ", "order A-1"))]
    assert titles == [
        *("order", "payments", "what happens next", "notifications", "callbacks", "refunds", "disputes", "open cases"),
        "timeline (UTC)",
    ]


async def test_an_undelivered_notification_is_shown_with_its_next_try_and_last_error(
    nodrop: Nodrop, place: Place, channel: Channel, resources: Resources
) -> None:
    await channel.pay(number_of(await place("A-1", notify_url="https://shop.test/n")))
    await refresh_order(resources, "A-1", trailing=True)
    await resources.db.execute(
        "UPDATE notifications SET attempt = 2, last_status = 'ConnectError', due_at = now() + interval '4 min'"
    )
    shown = await nodrop("orders", "show", "A-1")
    assert "The merchant is notified of order.paid: try 2 (last: ConnectError)" in shown.out
    assert "refresh: paid at main. The order is paid" in shown.out
    document = (await nodrop("orders", "show", "A-1", "--json")).json
    assert [(step["kind"], step["waits_for"]) for step in document["next"]] == [("delivery_again", "worker")]
    assert document["notifications"][0]["last_status"] == "ConnectError"


async def test_every_event_is_one_line_with_milliseconds(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    lines = (await nodrop("orders", "show", "A-1")).out.partition("timeline (UTC)\n")[2].splitlines()
    assert [re.sub(r"[0-9]", "0", line[:25]) for line in lines] == ["  00-00 00:00:00.000    0"] * 2


async def test_colours_are_for_terminals_and_can_be_switched_off(
    nodrop: Nodrop, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner is asked to keep what a terminal would get."""
    await place("A-1")
    monkeypatch.setattr(CliRunner, "invoke", partialmethod(CliRunner.invoke, color=True))
    show = ("orders", "show", "A-1")
    assert "\x1b[" in (await nodrop(*show)).out
    assert "\x1b[" not in (await nodrop(*show, "--no-color")).out
    assert "\x1b[" not in (await nodrop(*show, env={"NO_COLOR": "1"})).out
    assert "\x1b[" in (await nodrop(*show, env={"NO_COLOR": ""})).out


# -- finding -----------------------------------------------------------------------------------------------------------


async def test_an_order_is_found_by_a_number_of_its_payment(nodrop: Nodrop, place: Place) -> None:
    number = number_of(await place("A-1"))
    found = await nodrop("orders", "find", number)
    assert [line.split() for line in found.out.splitlines()] == [
        ["ORDER", "MATCHED", "BY", "NUMBER", "ACCOUNT"],
        ["A-1", "out_trade_no", number, "main"],
    ]
    document = (await nodrop("orders", "find", "A-1", "--json")).json
    assert document["order_no"] == "A-1"
    assert [match["kind"] for match in document["matches"]] == ["order_no"]


async def test_a_page_is_found_by_its_link_and_the_link_is_not_repeated(nodrop: Nodrop, place: Place) -> None:
    token = (await place("A-1")).order.page_token
    found = await nodrop("orders", "find", f"http://127.0.0.1:8000/o/{token}")
    assert (found.code, "A-1" in found.out, token in found.out) == (0, True, False)


async def test_a_number_that_nothing_here_has_is_one_line(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    assert (await nodrop("orders", "find", "none")).line == "nothing here has this number"
    found = await nodrop("orders", "find", "none", "--json")
    assert (found.code, found.json) == (1, {"order_no": None, "matches": []})


async def test_money_that_only_a_callback_shows_is_called_unconfirmed(
    nodrop: Nodrop, place: Place, resources: Resources
) -> None:
    state = await place("A-1")
    assert (await nodrop("orders", "show", "A-1", "--json")).json["order"]["payments"][0]["confirmed"] is None
    paid = Paid(
        channel_account="main",
        out_trade_no=number_of(state),
        amount=8888,
        currency="CNY",
        channel_transaction_id="t-1",
    )
    decide = partial(
        on_callback, key=state.payments[0].key, evidence=paid, rules=Rules(), by=Source.CALLBACK, unconfirmed=True
    )
    await commit_decision(resources, "A-1", decide)
    assert "paid (unconfirmed)" in (await nodrop("orders", "show", "A-1")).out
    assert (await nodrop("orders", "show", "A-1", "--json")).json["order"]["payments"][0]["confirmed"] is False


async def test_an_order_as_json_is_what_the_api_shows_and_more(nodrop: Nodrop, place: Place) -> None:
    state = await place("A-1")
    document = (await nodrop("orders", "show", "A-1", "--json")).json
    assert document["order"]["payments"][0]["out_trade_no"] == number_of(state)
    assert {row["kind"] for row in document["pending"]} == {"query", "deadline"}
    assert [entry["kind"] for entry in document["timeline"]] == ["placed", "handed_off"]
    assert document["cases"] == []


async def test_an_order_that_is_not_there_is_one_line(nodrop: Nodrop) -> None:
    for command in (("show",), ("refresh", "--reason", "x"), ("close", "--reason", "x")):
        ran = await nodrop("orders", *command, "none")
        assert (ran.code, "order none" in ran.line) == (1, True)


async def test_a_status_that_is_none_is_a_usage_error(bare: Nodrop) -> None:
    ran = await bare("orders", "list", "--status", "unpaid")
    assert (ran.code, "'created', 'paying', 'paid', 'closed'" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T04:30:00", datetime(2026, 11, 23, 4, 30, tzinfo=UTC)),
        ("2026-11-23T12:30:00+08:00", datetime(2026, 11, 23, 4, 30, tzinfo=UTC)),
    ],
)
def test_an_instant_is_utc_unless_it_says_otherwise(text: str, at: datetime) -> None:
    assert Since().convert(text, None, None) == at


@pytest.mark.parametrize("text", ["", "h", "-1h", "2w", "1.5h", "２h", "9999999d", "yesterday"])
def test_an_age_that_is_none_says_what_to_write(text: str) -> None:
    with pytest.raises(click.BadParameter, match="30m, 2h or 7d"):
        Since().convert(text, None, None)


# -- asking ------------------------------------------------------------------------------------------------------------


async def test_a_lost_callback_is_recovered_by_refresh(nodrop: Nodrop, place: Place, channel: Channel) -> None:
    await channel.pay(number_of(await place("A-1")))
    ran = await nodrop("orders", "refresh", "A-1", "--reason", "x")
    assert (ran.code, ran.err) == (0, "")
    assert "channel says paid 88.88 CNY as " in ran.out
    assert "order A-1: paid by main" in ran.out.splitlines()[-1]


async def test_a_refresh_tells_what_the_channel_said_also_when_it_changes_nothing(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    ran = await nodrop("orders", "refresh", "A-1", "--reason", "x", "--json")
    assert ran.code == 0
    assert ran.json["order"]["status"] == "paying"
    assert [entry["kind"] for entry in ran.json["timeline"]] == ["unpaid_seen"]


async def test_a_channel_without_a_clear_answer_is_no_conclusion(
    nodrop: Nodrop, place: Place, channel: Channel
) -> None:
    await place("A-1")
    await channel.faults(answered_5xx=1.0)
    ran = await nodrop("orders", "refresh", "A-1", "--reason", "x")
    assert (ran.code, ran.line.startswith("the channel gave no clear answer (status_5")) == (1, True)
    assert "order A-1: paying" in ran.out


async def test_a_refresh_works_without_redis(nodrop: Nodrop, place: Place, channel: Channel) -> None:
    """A log line on standard error reports it, and nothing more: Postgres remembers."""
    await channel.pay(number_of(await place("A-1")))
    ran = await nodrop("orders", "refresh", "A-1", "--reason", "x", env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert ran.code == 0, ran
    assert "order A-1: paid" in ran.out
    assert "redis" in ran.err


async def test_a_refresh_of_a_closed_order_finds_money_that_came_after_the_close(
    nodrop: Nodrop, place: Place, channel: Channel
) -> None:
    """Its callback was lost, and no statement is read until tomorrow."""
    number = number_of(await place("A-1"))
    assert (await nodrop("orders", "close", "A-1", "--reason", "x")).code == 0
    channel.far_side.ledger.settle_late(Key(MERCHANT_ID, number), channel.far_side.now())
    ran = await nodrop("orders", "refresh", "A-1", "--reason", "x")
    assert (ran.code, ran.err) == (0, "")
    assert "order A-1: paid by main" in ran.out.splitlines()[-1]


async def test_an_order_without_open_payments_is_not_asked_about(
    nodrop: Nodrop, place: Place, channel: Channel, resources: Resources
) -> None:
    await channel.pay(number_of(await place("A-1")))
    await refresh_order(resources, "A-1", trailing=True)
    ran = await nodrop("orders", "refresh", "A-1", "--reason", "x")
    assert (ran.code, "nothing to ask" in ran.err) == (0, True)


# -- ending ------------------------------------------------------------------------------------------------------------


async def test_an_order_is_closed_when_its_channel_has_said_that_it_is_unpaid(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    ran = await nodrop("orders", "close", "A-1", "--reason", "x")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("order A-1: closed")


async def test_a_paid_order_is_never_closed(nodrop: Nodrop, place: Place, channel: Channel) -> None:
    """It was paid at the channel, and a query finds that out."""
    await channel.pay(number_of(await place("A-1")))
    ran = await nodrop("orders", "close", "A-1", "--reason", "x")
    assert (ran.code, ran.line) == (1, "order A-1 is paid")
    assert (await nodrop("orders", "show", "A-1", "--json")).json["order"]["status"] == "paid"


async def test_an_order_is_not_closed_while_its_channel_gives_no_clear_answer(
    nodrop: Nodrop, place: Place, channel: Channel
) -> None:
    await place("A-1")
    await channel.faults(answered_5xx=1.0)
    ran = await nodrop("orders", "close", "A-1", "--reason", "x")
    assert (ran.code, ran.line.startswith("not closed yet")) == (1, True)
    assert ran.out.startswith("order A-1: paying")


# -- accepting ---------------------------------------------------------------------------------------------------------


async def test_money_after_close_is_accepted_by_a_named_person(
    nodrop: Nodrop, place: Place, resources: Resources
) -> None:
    await pay_after_close(resources, await place("A-1", notify_url="https://shop.test/n"))
    assert "paid_late" in (await nodrop("orders", "show", "A-1")).out
    ran = await nodrop("orders", "accept", "A-1", "--by", "alice", "--reason", "x")
    assert ran.code == 0, ran
    assert ran.out.startswith("order A-1: paid by main")
    document = (await nodrop("orders", "show", "A-1", "--json")).json
    assert document["cases"] == []
    assert (document["timeline"][-1]["by"], document["timeline"][-1]["note"]) == ("operator", "by alice")


async def test_what_no_channel_has_confirmed_cannot_be_accepted(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    ran = await nodrop("orders", "accept", "A-1", "--by", "alice", "--reason", "x")
    assert (ran.code, "money that its channel has confirmed" in ran.line) == (1, True)
    assert (await nodrop("orders", "accept", "A-1", "--by", " ", "--reason", "x")).code == 2


# -- giving back -------------------------------------------------------------------------------------------------------


async def test_flagged_money_goes_back_by_an_operators_decision(
    nodrop: Nodrop, place: Place, resources: Resources
) -> None:
    """Requested once, however often the command runs; the worker does the rest."""
    state = await place("A-1")
    await pay_after_close(resources, state)
    number = number_of(state)
    command = ("orders", "refund", "A-1", "--out-trade-no", number, "--by", "alice", "--reason", "sold out", "--yes")
    ran = await nodrop(*command)
    assert ran == (0, f"refund r{number}: 88.88 CNY of payment {number}, requested\n", "")
    refund = (await nodrop(*command, "--json")).json
    assert (refund["refund_no"], refund["amount"], refund["status"]) == (f"r{number}", 8888, "requested")

    document = (await nodrop("orders", "show", "A-1", "--json")).json
    assert [refund["refund_no"] for refund in document["order"]["refunds"]] == [f"r{number}"]
    assert (document["timeline"][-1]["by"], document["timeline"][-1]["note"]) == ("operator", f"r{number} by alice")
    assert [entry["kind"] for entry in document["timeline"]].count("refund_requested") == 1
    assert f"r{number}" in (await nodrop("orders", "show", "A-1")).out

    await resources.db.execute("UPDATE refunds SET status = 'processing', channel_refund_no = 're_1'")
    assert "at the channel re_1" in (await nodrop("orders", "show", "A-1")).out
    assert (await nodrop("orders", "show", "A-1", "--json")).json["order"]["refunds"][0]["channel_refund_no"] == "re_1"
    assert "channel_refund_no" in (await nodrop("orders", "find", "re_1")).out
    again = (await nodrop(*command)).out
    assert again == f"refund r{number}: 88.88 CNY of payment {number}, processing as re_1 at the channel\n"
    refused = await nodrop("orders", "accept", "A-1", "--by", "bob", "--reason", "x")
    assert (refused.code, "on its way back" in refused.line) == (1, True)


@pytest.mark.parametrize(("answer", "is_requested"), [(b"y\n", True), (b"n\n", False), (b"", False)])
async def test_money_goes_back_only_after_a_yes(
    nodrop: Nodrop, place: Place, resources: Resources, answer: bytes, is_requested: bool
) -> None:
    state = await place("A-1")
    await pay_after_close(resources, state)
    ran = await nodrop(
        "orders", "refund", "A-1", "--out-trade-no", number_of(state), "--reason", "sold out", stdin=answer
    )
    assert f"88.88 CNY of payment {number_of(state)} go back to the buyer" in ran.err
    assert "give it back, order A-1? [y/N]" in ran.err
    assert (ran.code == 0) is is_requested
    refunds = (await nodrop("orders", "show", "A-1", "--json")).json["order"]["refunds"]
    assert len(refunds) == is_requested


async def test_what_cannot_be_given_back_is_one_line(nodrop: Nodrop, place: Place) -> None:
    number = number_of(await place("A-1"))
    for order_no, out_trade_no, says in (
        ("A-1", number, "The payment is not paid."),
        ("A-1", "another-1", "no payment another-1"),
        ("A-2", number, "order A-2"),
    ):
        ran = await nodrop("orders", "refund", order_no, "--out-trade-no", out_trade_no, "--reason", "x", "--yes")
        assert (ran.code, says in ran.line) == (1, True), ran
    refund = ("orders", "refund", "A-1", "--out-trade-no", number, "--yes")
    for wrong in (("--reason", "x", "--by", " "), (), ("--reason", "x", "--amount", "1.00")):
        assert (await nodrop(*refund, *wrong)).code == 2
    for amount in ("1.001", "0.00", "-1", "one"):
        assert (await nodrop(*refund, "--reason", "x", "--key", "k", "--amount", amount)).code == 2


async def test_a_part_of_a_paid_order_goes_back_once_for_each_key(
    nodrop: Nodrop, place: Place, channel: Channel
) -> None:
    number = await paid_order(nodrop, place, channel)
    refund = ("orders", "refund", "A-1", "--out-trade-no", number, "--amount", "12.50", "--key", "ticket-77")
    command = (*refund, "--reason", "one cup was broken")
    shown = await nodrop(*command, "--dry-run")
    assert shown.out.splitlines()[:2] == [
        f"12.50 CNY of payment {number} go back to the buyer, by refund r{number} at main.",
        "76.38 CNY of 88.88 CNY are left then.",
    ]
    assert "note: This money has paid the order." in shown.out
    preview = (await nodrop(*command, "--dry-run", "--json")).json["preview"]
    assert (preview["possible"], preview["lines"][0]["key"]) == (True, "refund.gives_back")
    for _ in range(2):
        ran = await nodrop(*command, "--yes")
        assert ran == (0, f"refund r{number}: 12.50 CNY of payment {number}, requested\n", "")
    conflict = await nodrop(*(text if text != "12.50" else "12.51" for text in command), "--yes")
    assert (conflict.code, "another payment or amount" in conflict.line) == (1, True)
    much = await nodrop(*(text if text != "12.50" else "99.00" for text in command), "--key", "other", "--dry-run")
    assert (much.code, much.line) == (1, "So much is not left: 76.38 CNY can still go back.")
    document = (await nodrop("orders", "show", "A-1", "--json")).json
    assert [(row["amount"], row["key"]) for row in document["order"]["refunds"]] == [(1250, "ticket-77")]
    [act] = [row for row in (await nodrop("audit", "--about", "A-1", "--json")).json if "key" in row["detail"]][:1]
    assert act["detail"] == {
        "out_trade_no": number,
        "reason": "one cup was broken",
        "amount": "12.51",
        "key": "ticket-77",
    }


async def test_above_the_limit_somebody_else_has_to_agree(nodrop: Nodrop, place: Place, channel: Channel) -> None:
    number = await paid_order(nodrop, place, channel)
    limited = {"OPS_REFUND_ALONE_MAX": "20 CNY"}
    refund = ("orders", "refund", "A-1", "--out-trade-no", number, "--by", "ann", "--reason", "sold out", "--yes")
    waiting = await nodrop(*refund, env=limited)
    assert (waiting.code, "waits for a second operator until" in waiting.out) == (0, True)
    [approval] = (await nodrop("approvals", "list", "--json")).json
    assert (approval["amount"], approval["requested_by"], approval["reason"]) == (8888, "ann", "sold out")
    assert "sold out" in (await nodrop("approvals", "list")).out
    number_of_it = str(approval["id"])
    own = await nodrop("approvals", "approve", number_of_it, "--by", "ann", "--reason", "x")
    assert (own.code, own.line) == (1, "Somebody else has to decide: you have asked for this refund.")
    shown = await nodrop("approvals", "approve", number_of_it, "--by", "bob", "--dry-run")
    assert shown.out.startswith("ann has asked for it: sold out\n")
    approved = await nodrop("approvals", "approve", number_of_it, "--by", "bob", "--reason", "x")
    assert (approved.code, approved.out.startswith("refund r")) == (0, True)
    assert (await nodrop("approvals", "list")).out == "no refund waits for an approval\n"
    late = await nodrop("approvals", "decline", number_of_it, "--by", "cleo", "--reason", "no")
    assert (late.code, late.line) == (1, "bob has decided already: approved.")
    assert (await nodrop("approvals", "list", "--all", "--json")).json[0]["decided_by"] == "bob"


async def test_a_dry_run_of_an_end_or_an_acceptance_changes_nothing(nodrop: Nodrop, place: Place) -> None:
    await place("A-1")
    close = await nodrop("orders", "close", "A-1", "--dry-run")
    assert (close.code, close.out.splitlines()[0]) == (
        0,
        "Each of 1 open payments is queried, closed at its channel, and queried again.",
    )
    refresh = await nodrop("orders", "refresh", "A-1", "--dry-run")
    assert (refresh.code, refresh.out.startswith("1 payments are queried")) == (0, True)
    accept = await nodrop("orders", "accept", "A-1", "--by", "alice", "--dry-run")
    assert (accept.code, accept.line.startswith("No payment of the order has money")) == (1, True)
    as_json = await nodrop("orders", "accept", "A-1", "--by", "alice", "--dry-run", "--json")
    assert (as_json.code, as_json.json["preview"]["possible"]) == (1, False)
    assert (await nodrop("orders", "show", "A-1", "--json")).json["order"]["status"] == "paying"
    assert (await nodrop("audit", "--json")).json == []


async def test_a_number_of_a_buyer_is_asked_about_and_attached(
    nodrop: Nodrop, place: Place, channel: Channel, resources: Resources
) -> None:
    number = await paid_order(nodrop, place, channel, "E-1")
    await resources.db.execute("DELETE FROM pending")
    await resources.db.execute("DELETE FROM notifications")
    for table in ("order_events", "payments", "orders"):
        await resources.db.execute(f"DELETE FROM {table} WHERE order_no = 'E-1'")  # noqa: S608 - ours
    await place("A-1")
    attach = ("orders", "attach", "A-1", "--account", "main", "--number", number, "--reason", "the buyer wrote")
    shown = await nodrop(*attach, "--dry-run")
    assert (shown.code, f"main says of {number}: paid, 88.88 CNY" in shown.out) == (0, True)
    assert (await nodrop(*attach, stdin=b"n\n")).code == 1
    attached = await nodrop(*attach, stdin=b"y\n")
    assert (attached.code, attached.out.startswith("order A-1: paid by main")) == (0, True), attached
    again = await nodrop(*attach, "--yes", "--json")
    assert (again.code, again.json["status"]) == (0, "paid")
    refused = await nodrop(
        "orders", "attach", "A-1", "--account", "main", "--number", "none-1", "--reason", "x", "--yes"
    )
    assert (refused.code, refused.line) == (1, "Only money that is there can be attached.")


async def paid_order(nodrop: Nodrop, place: Place, channel: Channel, order_no: str = "A-1") -> str:
    """Place an order that its buyer pays; the payment's number."""
    state = await place(order_no)
    await channel.pay(number_of(state))
    assert (await nodrop("orders", "refresh", order_no, "--reason", "x")).code == 0
    return number_of(state)


async def pay_after_close(resources: Resources, state: OrderState) -> None:
    """The channel says, too late, that it has the money; the account's policy leaves the order closed."""
    await request_close(resources, state.order.order_no)
    payment = state.payments[0]
    paid = Paid(
        channel_account=payment.channel_account,
        out_trade_no=payment.out_trade_no,
        amount=payment.amount,
        currency=payment.currency,
        channel_transaction_id="t-late",
    )
    rules = Rules(late_policy=LatePolicy.FLAG)
    decide = partial(on_callback, key=payment.key, evidence=paid, rules=rules, by=Source.CALLBACK)
    await commit_decision(resources, state.order.order_no, decide)
