"""After a harsh run a program that has the API alone knows why every order is as it is and what comes next, sends what
was not heard, and resolves every case.

The channels lose, forge and break callbacks as in `nodrop demo`; a third of the notifications is answered 410. What the
program reads is compared with the channels' ledger and the merchant's effects, which it does not see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import pytest

from demo.stack import Stack
from tests.scenarios.harsh_run import (
    SHOPPERS,
    Program,
    Row,
    check_is_told,
    harsh_stack,
    heard_by_merchant,
    paid_at_channel,
    settled,
    shop,
)
from tests.scenarios.scenario import QUIET_S
from tests.servers import eventually

CHOICES = ("accept", "refund", "query", "note")
"""Answers to a case, the one that ends most first."""


async def send_unheard_again(stack: Stack, program: Program, stories: Mapping[str, Row]) -> None:
    """Every notification that was given up is named by its order's story, and sent again until it is heard."""
    dead = [step for story in stories.values() for step in story["next"] if step["kind"] == "delivery_dead"]
    assert dead
    for step in dead:
        path = f"/v1/notifications/{step['notification_id']}/resend"
        assert (await program.act(path, dry_run=True)).json()["preview"]["possible"]
        assert (await program.act(path)).status_code < HTTPStatus.BAD_REQUEST
    paid = {order_no for order_no, story in stories.items() if story["status"] == "paid"}

    async def is_heard() -> bool:
        return paid <= await heard_by_merchant(stack)

    await eventually(is_heard, QUIET_S, 0.2)


async def resolve_all(stack: Stack, program: Program) -> Counter[str]:
    """Answer every open case by the first choice that is possible; return the choices by number."""
    answered: Counter[str] = Counter()
    for choices in (CHOICES, ("note",)):
        for case in await program.open_cases():
            choice = await _answer(program, case, choices)
            answered[choice] += 1
        await settled(stack)
    return answered


async def _answer(program: Program, case: Row, choices: Sequence[str]) -> str:
    path = f"/v1/cases/{case['id']}/resolve"
    for choice in choices:
        answer = {"choice": choice, **({"key": f"case-{case['id']}"} if choice == "refund" else {})}
        preview = await program.act(path, **answer, dry_run=True)
        if preview.status_code == HTTPStatus.OK and preview.json()["preview"]["possible"]:
            done = await program.act(path, **answer)
            assert done.status_code < HTTPStatus.BAD_REQUEST, (case, choice, done.text)
            return choice
    raise AssertionError(f"no choice fits {case}")


@pytest.mark.long
async def test_every_order_is_told_and_what_is_open_is_ended_over_http(servers_home: Path) -> None:
    async with harsh_stack(servers_home / f"operated-{uuid4().hex}") as (stack, program):
        await shop(stack)
        stories = await program.stories()
        paid_numbers = await paid_at_channel(stack)
        for story in stories.values():
            check_is_told(story, paid_numbers)
        kinds = Counter(entry["kind"] for story in stories.values() for entry in story["entries"])
        assert len(stories) >= SHOPPERS
        assert kinds["callback_refused"] > 0, "forged callbacks are seen at the orders that they claim"

        await send_unheard_again(stack, program, stories)
        answered = await resolve_all(stack, program)
        assert answered["refund"] > 0, "late or double money goes back by a choice"
        assert await program.open_cases() == []
        for story in (await program.stories()).values():
            check_is_told(story, await paid_at_channel(stack))
            assert not [step for step in story["next"] if step["waits_for"] == "person"], story
