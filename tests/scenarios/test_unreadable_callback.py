"""Callbacks with unreadable bodies and a valid signature: stored as they are, a case at once, and the next callback is
handled. Refused, they would come for days, and what they were about would be lost.
"""

import msgspec

from core.order import CaseReason
from tests.scenarios.scenario import Scenario
from tests.sealed import raw_callbacks

CALLBACK_ID = "cb_unreadable"

BODIES = {
    "empty": b"",
    "nul": b"\x00" * 100,
    "no_json": b"payment=paid",
    "deep": b"[" * 10_000,
    "long_integer": b'{"id":"cb_unreadable","payment":{"amount":' + b"9" * 5_000 + b"}}",
    "invalid_utf_8": b'{"id":"cb_unreadable","payment":"\xff\xfe"}',
    "lone_surrogate": b'{"id":"cb_unreadable","payment":{"out_trade_no":"\\ud800"}}',
    "full_width_digits": '{"id":"cb_unreadable","payment":{"amount":"８８８８"}}'.encode(),
    "not_a_number": b'{"id":"cb_unreadable","payment":{"amount":NaN}}',
    "an_array": b"[]",
    "too_large": b'"' + b"x" * 70_000 + b'"',
}


async def test_unreadable_bodies_are_stored_and_the_next_callback_pays(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)

    responses = {
        name: await scenario.deliver(scenario.sign(body, callback_id=CALLBACK_ID), body)
        for name, body in BODIES.items()
    }

    refused = {name for name, response in responses.items() if response.status_code != 200}
    assert refused == {"too_large"}
    assert await stored_bodies(scenario) >= {body for name, body in BODIES.items() if name not in refused}
    assert CaseReason.CALLBACK_UNREADABLE in await scenario.cases_at("sandbox")
    await scenario.pay(order, "none")
    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "callback"


async def stored_bodies(scenario: Scenario) -> set[bytes]:
    return {callback.body for callback in await raw_callbacks(scenario.db, scenario.sealer)}


async def test_line_breaks_in_a_subject_are_only_text(scenario: Scenario) -> None:
    order = await scenario.place("trusting")
    headers, body = scenario.signed_callback(
        order, account="trusting", subject="Tea\r\nSet-Cookie: a=b\u2028", amount=1
    )

    response = await scenario.deliver(headers, body, account="trusting")

    assert (response.status_code, response.content) == (200, b"ok")
    assert "set-cookie" not in response.headers
    assert msgspec.json.decode(body)["payment"]["subject"].startswith("Tea\r\n")
