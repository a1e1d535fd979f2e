"""Callbacks with unreadable bodies and a valid signature: refused, and the next callback is handled."""

import msgspec

from tests.scenarios.scenario import Scenario

REFUSED = {400, 401, 413, 415, 503}
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


async def test_unreadable_bodies_are_refused_and_the_next_callback_pays(scenario: Scenario) -> None:
    order = await scenario.place()
    await scenario.put_off(order)

    responses = {
        name: await scenario.deliver(scenario.sign(body, callback_id=CALLBACK_ID), body)
        for name, body in BODIES.items()
    }

    assert {name for name, response in responses.items() if response.status_code not in REFUSED} == set()
    assert {response.headers["content-type"] for response in responses.values()} == {"application/problem+json"}
    await scenario.pay(order, "none")
    await scenario.until("paid", order)
    assert await scenario.paid_by(order) == "callback"


async def test_line_breaks_in_a_subject_are_only_text(scenario: Scenario) -> None:
    order = await scenario.place("trusting")
    headers, body = scenario.signed_callback(
        order, account="trusting", subject="Tea\r\nSet-Cookie: a=b\u2028", amount=1
    )

    response = await scenario.deliver(headers, body, account="trusting")

    assert (response.status_code, response.content) == (200, b"ok")
    assert "set-cookie" not in response.headers
    assert msgspec.json.decode(body)["payment"]["subject"].startswith("Tea\r\n")
