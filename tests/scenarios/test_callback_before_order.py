"""A callback overtakes the order that it is about: answered with success and forgotten, it would be lost."""

from core.order import CaseReason
from flows.place import new_number
from tests.scenarios.scenario import Scene
from tests.servers import eventually


async def test_a_callback_for_an_order_that_is_not_there_yet_pays_it_when_it_is(scene: Scene) -> None:
    """The payment was created by another system of the merchant; nodrop is told of it a moment too late."""
    number = new_number()
    await scene.create_elsewhere(number)
    await scene.stack.control("POST", "channel", f"/control/payments/{number}/pay")
    [stored] = await eventually(lambda: scene.callbacks(number))
    assert not stored["is_handled"]

    placed = await scene.post("/v1/orders", scene.terms(account="sandbox", watch={"out_trade_no": number}))

    assert placed.status_code == 201, placed.text
    await scene.until("paid", placed.json()["order_no"])


async def test_a_callback_for_no_order_at_all_ends_as_a_case(scene: Scene) -> None:
    """Acknowledged, for sending it again would not help; looked up for a day; then a person has to see it."""
    number = new_number()
    answer = await scene.deliver(*scene.signed_callback(number))
    assert (answer.status_code, answer.content) == (200, b"ok")
    [stored] = await scene.callbacks(number)
    assert (stored["is_handled"], stored["is_dead"]) == (False, False)

    await scene.make_callback_due(number, attempt=16)

    assert await eventually(lambda: scene.cases(number)) == [CaseReason.UNKNOWN_ORDER]
    [stored] = await scene.callbacks(number)
    assert stored["is_dead"]
