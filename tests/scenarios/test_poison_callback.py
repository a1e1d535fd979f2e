"""Callbacks that break whoever reads them, with the channel's own signature: refused, and the next one is handled."""

import msgspec

from tests.scenarios.scenario import Scene

REFUSED = {400, 401, 413, 415, 503}
CALLBACK_ID = "cb_poison"

BODIES = {
    "empty": b"",
    "nul": b"\x00" * 100,
    "no_json": b"payment=paid",
    "deep": b"[" * 10_000,
    "long_integer": b'{"id":"cb_poison","payment":{"amount":' + b"9" * 5_000 + b"}}",
    "invalid_utf_8": b'{"id":"cb_poison","payment":"\xff\xfe"}',
    "lone_surrogate": b'{"id":"cb_poison","payment":{"out_trade_no":"\\ud800"}}',
    "full_width_digits": '{"id":"cb_poison","payment":{"amount":"８８８８"}}'.encode(),
    "not_a_number": b'{"id":"cb_poison","payment":{"amount":NaN}}',
    "an_array": b"[]",
    "too_large": b'"' + b"x" * 70_000 + b'"',
}


async def test_poisonous_bodies_are_refused_and_the_next_callback_pays(scene: Scene) -> None:
    order = await scene.place()
    await scene.put_off(order)

    answers = {
        name: await scene.deliver(scene.sign(body, callback_id=CALLBACK_ID), body) for name, body in BODIES.items()
    }

    assert {name for name, answer in answers.items() if answer.status_code not in REFUSED} == set()
    assert {answer.headers["content-type"] for answer in answers.values()} == {"application/problem+json"}
    await scene.pay(order, "none")
    await scene.until("paid", order)
    assert await scene.paid_by(order) == "callback"


async def test_line_breaks_in_a_subject_are_only_text(scene: Scene) -> None:
    order = await scene.place("trusting")
    headers, body = scene.signed_callback(order, account="trusting", subject="Tea\r\nSet-Cookie: a=b\u2028", amount=1)

    answer = await scene.deliver(headers, body, account="trusting")

    assert (answer.status_code, answer.content) == (200, b"ok")
    assert "set-cookie" not in answer.headers
    assert msgspec.json.decode(body)["payment"]["subject"].startswith("Tea\r\n")
