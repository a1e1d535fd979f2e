"""A case of every reason in the console: its page says in words what to do, offers what fits, and is where it ends."""

import re
from html import unescape
from typing import Any

import pytest

from api.console.texts import LANGUAGES
from core.case_choices import choices_for
from core.operators import Role
from core.order import CaseReason
from runtime.resources import Resources
from storage.postgres.cases import find_case
from tests.api.conftest import terms
from tests.api.console.conftest import ConsoleClient, SignedIn
from tests.api.driver import Client

_OPEN = """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
VALUES ($1, $2, $3, $4, 'a test') RETURNING id"""

REASON = {"reason": "looked at in the channel's console"}


@pytest.fixture
async def order(client: Client, account: str) -> dict[str, Any]:
    placed: dict[str, Any] = (await client.post("/v1/orders", terms(account=account))).json
    return placed


async def page(console: ConsoleClient, target: str, lang: str = "en") -> str:
    response = await console.get(target, accept_language=lang)
    assert response.status == 200, (target, response.body.decode())
    return unescape(response.body.decode())


async def test_a_case_of_every_reason_is_explained_and_answered(
    signed_in: SignedIn, order: dict[str, Any], resources: Resources
) -> None:
    order_no, number = order["order_no"], order["payments"][0]["out_trade_no"]
    anna = await signed_in(Role.OPERATOR, "anna")
    for reason in CaseReason:
        case_id = await resources.db.fetchval(_OPEN, order_no, "main", number, reason.value)
        here = f"/ops/cases/{case_id}"
        for lang, language in LANGUAGES.items():
            shown = await page(anna, here, lang)
            assert language.texts[f"reason.{reason}"] in shown, (reason, lang)
            assert language.texts["cases.unknown"] not in shown, (reason, lang)
            assert language.texts[f"reason.{reason}"] in await page(anna, f"{here}/resolve", lang), (reason, lang)
        assert f'href="{here}/resolve" data-press="r"' in await page(anna, here)
        offered = re.findall(rf'href="{here}/resolve\?choice=(\w+)"', await page(anna, f"{here}/resolve"))
        assert tuple(offered) == choices_for(reason), reason
        for choice in choices_for(reason):
            looked_at = await page(anna, f"{here}/resolve?choice={choice}&order_no={order_no}")
            assert 'class="preview"' in looked_at, (reason, choice)
        assert f'href="{here}"' in await page(anna, f"/ops/orders/{order_no}"), reason
        answered = await anna.post(f"{here}/resolve", {"choice": "note", **REASON})
        assert (answered.status, answered.headers["location"]) == (303, here), reason
        case = await find_case(resources.db, case_id)
        assert case is not None
        assert (case.resolution, case.by) == (REASON["reason"], "anna"), reason
