from datetime import timedelta

import pytest

from core.order import CaseReason
from runtime.resources import Resources
from storage.postgres.orders import find_now
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


async def listed(nodrop: Nodrop, *options: str) -> list[int]:
    return [case["id"] for case in (await nodrop("cases", "list", "--json", *options)).json]


async def test_open_cases_are_listed_newest_first(nodrop: Nodrop, opened: list[int]) -> None:
    older, newer = opened
    assert await listed(nodrop) == [newer, older]
    assert await listed(nodrop, "--reason", "paid_late") == [older]
    assert await listed(nodrop, "--order", "A-2") == [newer]
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
    assert (again.code, again.line.startswith(f"there is no open case {opened[0]}")) == (1, True)


@pytest.mark.parametrize(
    "wrong",
    [
        ("12", "--by", "alice"),
        ("12", "--resolution", "seen", "--by", " "),
        ("twelve", "--resolution", "seen", "--by", "alice"),
        ("99999999999999999999", "--resolution", "seen", "--by", "alice"),
    ],
)
async def test_a_case_is_never_resolved_without_an_answer_and_a_name(bare: Nodrop, wrong: tuple[str, ...]) -> None:
    assert (await bare("cases", "resolve", *wrong)).code == 2


async def test_without_cases_there_is_nothing_to_do(nodrop: Nodrop) -> None:
    assert (await nodrop("cases", "list")).out == "no such cases\n"
