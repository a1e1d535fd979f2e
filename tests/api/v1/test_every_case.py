"""A case for every reason, over HTTP: its order's story names it, its page says what to do, and it is resolved."""

from typing import Any

import pytest

from core.case_choices import choices_for
from core.order import CaseReason
from runtime.resources import Resources
from tests.api.conftest import terms
from tests.api.driver import Client

_OPEN = """
INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail)
VALUES ($1, $2, $3, $4, 'a test') RETURNING id"""


@pytest.fixture
async def order(client: Client, account: str) -> dict[str, Any]:
    placed: dict[str, Any] = (await client.post("/v1/orders", terms(account=account))).json
    return placed


async def waiting(client: Client, order_no: str) -> list[int]:
    """Cases of the order that its story says a person has to answer."""
    steps = (await client.get(f"/v1/orders/{order_no}/story")).json["next"]
    return [step["case_id"] for step in steps if step["kind"] == "case_waits"]


async def test_a_case_of_every_reason_is_named_explained_and_resolved(
    client: Client, order: dict[str, Any], resources: Resources
) -> None:
    order_no, number = order["order_no"], order["payments"][0]["out_trade_no"]
    for reason in CaseReason:
        case_id = await resources.db.fetchval(_OPEN, order_no, "main", number, reason.value)
        assert await waiting(client, order_no) == [case_id], reason
        detail = (await client.get(f"/v1/cases/{case_id}")).json
        assert detail["case"]["reason"] == reason
        assert detail["what"], reason
        assert detail["do"], reason
        path = f"/v1/cases/{case_id}/resolve"
        for choice in choices_for(reason):
            more = {"refund": {"key": "ticket-1"}, "attach": {"order_no": order_no}}.get(choice.value, {})
            answer = {"choice": choice, "reason": "a test", "dry_run": True, **more}
            preview = await client.post(path, answer)
            assert preview.status == 200, (reason, choice, preview.body)
            assert preview.json["preview"]["lines"] or preview.json["preview"]["refusal"], (reason, choice)
        resolved = await client.post(path, {"choice": "note", "reason": "looked at in the channel's console"})
        assert resolved.status == 200, (reason, resolved.body)
        assert resolved.json["case"]["resolved_at"], reason
        assert await waiting(client, order_no) == [], reason
