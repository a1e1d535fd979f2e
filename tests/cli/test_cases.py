from datetime import timedelta

import pytest

from core.order import CaseReason
from runtime.resources import Resources
from storage.postgres.orders import find_now
from tests.cli.conftest import Place
from tests.cli.nodrop import Nodrop

_OPEN = """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, opened_at)
VALUES ($1, 'main', 'n-' || $1, $2, $3, $4) RETURNING id"""


@pytest.fixture
async def opened(resources: Resources) -> list[int]:
    """Two cases, the older one first."""
    now = await find_now(resources.db)
    return [
        await resources.db.fetchval(_OPEN, "A-1", CaseReason.PAID_LATE.value, "policy flag", now - timedelta(hours=1)),
        await resources.db.fetchval(_OPEN, "A-2", CaseReason.AMOUNT_MISMATCH.value, "1 instead of 8888", now),
    ]


async def test_a_reason_of_another_release_is_printed_as_it_stands(
    nodrop: Nodrop, place: Place, resources: Resources
) -> None:
    order = (await place("A-1")).order
    sql = "INSERT INTO cases (order_no, reason) VALUES ($1, 'of_tomorrow') RETURNING id"
    case_id = str(await resources.db.fetchval(sql, order.order_no))
    for command in (
        ("orders", "show", order.order_no),
        ("orders", "show", order.order_no, "--json"),
        ("orders", "list", "--json"),
        ("cases", "list"),
        ("cases", "show", case_id),
        ("cases", "show", case_id, "--json"),
    ):
        ran = await nodrop(*command)
        assert (ran.code, "of_tomorrow" in ran.out) == (0, True), (command, ran.out, ran.err)
    note = ("cases", "resolve", case_id, "--reason", "as the newer guide says", "--by", "alice")
    assert (await nodrop(*note)).code == 0


async def listed(nodrop: Nodrop, *options: str) -> list[int]:
    return [case["id"] for case in (await nodrop("cases", "list", "--json", *options)).json]


async def test_open_cases_are_listed_newest_first(nodrop: Nodrop, opened: list[int]) -> None:
    older, newer = opened
    assert await listed(nodrop) == [newer, older]
    assert await listed(nodrop, "--reason", "paid_late") == [older]
    assert await listed(nodrop, "--order", "A-2") == [newer]
    assert await listed(nodrop, "--sort", "oldest") == [older, newer]
    text = (await nodrop("cases", "list")).out
    assert "1 instead of 8888" in text
    assert "RESOLUTION" not in text


async def test_a_resolved_case_is_not_listed_but_kept(nodrop: Nodrop, opened: list[int]) -> None:
    older, newer = opened
    ran = await nodrop("cases", "resolve", str(older), "--resolution", "refunded at the channel", "--by", "alice")
    assert (ran.code, ran.out) == (0, f"resolved case {older}\n")
    assert await listed(nodrop) == [newer]
    (case,) = [case for case in (await nodrop("cases", "list", "--all", "--json")).json if case["id"] == older]
    assert (case["resolution"], case["by"]) == ("refunded at the channel", "alice")
    assert "refunded at the channel" in (await nodrop("cases", "list", "--all")).out


async def test_a_case_is_resolved_once(nodrop: Nodrop, opened: list[int]) -> None:
    resolve = ("cases", "resolve", str(opened[0]), "--resolution", "seen", "--by", "alice")
    assert (await nodrop(*resolve)).code == 0
    again = await nodrop(*resolve)
    assert (again.code, again.line) == (1, f"alice has resolved case {opened[0]}.")


@pytest.mark.parametrize(
    "wrong",
    [
        ("12", "--by", "alice"),
        ("12", "--resolution", "seen", "--by", " "),
        ("twelve", "--resolution", "seen", "--by", "alice"),
        ("99999999999999999999", "--resolution", "seen", "--by", "alice"),
        ("12", "--resolution", "seen", "--by", "alice", "--amount", "1.00", "--key", "k"),
        ("12", "--resolution", "seen", "--by", "alice", "--choice", "refund", "--amount", "1.00"),
    ],
)
async def test_a_case_is_never_resolved_without_an_answer_and_a_name(bare: Nodrop, wrong: tuple[str, ...]) -> None:
    assert (await bare("cases", "resolve", *wrong)).code == 2


async def test_without_cases_there_is_nothing_to_do(nodrop: Nodrop) -> None:
    assert (await nodrop("cases", "list")).out == "no such cases\n"


async def test_a_case_is_shown_with_what_to_do(nodrop: Nodrop, opened: list[int]) -> None:
    ran = await nodrop("cases", "show", str(opened[0]))
    assert ran.code == 0
    assert ran.out.startswith(f"case {opened[0]}: paid_late\n")
    assert "What happened:\n  Money arrived after the order was closed." in ran.out
    assert "`nodrop orders accept ORDER_NO --reason REASON --by NAME`" in ran.out.replace("\n  ", " ")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "订单关闭之后款项到账" in (await nodrop("cases", "show", str(opened[0]), "--lang", "zh")).out
    shown = (await nodrop("cases", "show", str(opened[0]), "--json")).json
    assert (shown["case"]["order_no"], shown["guide"]["what"]) == ("A-1", "Money arrived after the order was closed.")
    assert (await nodrop("cases", "show", "999999999")).line.startswith("there is no case 999999999")


async def test_a_case_of_another_version_is_shown_without_a_guide(nodrop: Nodrop, resources: Resources) -> None:
    case_id = await resources.db.fetchval("INSERT INTO cases (reason) VALUES ('of_tomorrow') RETURNING id")
    ran = await nodrop("cases", "show", str(case_id))
    assert (ran.code, "What" in ran.out) == (0, False)


async def test_a_case_is_given_to_an_operator_and_back(nodrop: Nodrop, opened: list[int]) -> None:
    older, newer = opened
    ran = await nodrop("cases", "assign", str(older), "--to", "alice", "--by", "bob")
    assert (ran.code, ran.out) == (0, f"case {older} is alice's\n")
    assert await listed(nodrop, "--assignee", "alice") == [older]
    assert "alice, since 20" in (await nodrop("cases", "show", str(older))).out
    [act, *_] = (await nodrop("audit", "--about", str(older), "--json")).json
    assert (act["by"], act["action"], act["detail"]) == ("bob", "case.assign", {"to": "alice"})
    assert (await nodrop("cases", "assign", str(older), "--nobody", "--by", "bob")).out == f"case {older} is nobody's\n"
    assert await listed(nodrop, "--assignee", "alice") == []
    assert (await nodrop("cases", "resolve", str(newer), "--resolution", "seen", "--by", "bob")).code == 0
    assert "has resolved case" in (await nodrop("cases", "assign", str(newer), "--to", "alice", "--by", "bob")).line


@pytest.mark.parametrize(
    "wrong",
    [
        ("assign", "12", "--by", "bob"),
        ("assign", "12", "--to", "alice", "--nobody", "--by", "bob"),
        ("assign", "12", "--to", "alice", "--by", " "),
        ("list", "--sort", "longest"),
    ],
)
async def test_an_assignment_names_one_operator(bare: Nodrop, wrong: tuple[str, ...]) -> None:
    assert (await bare("cases", *wrong)).code == 2
