"""An order that is over is exported and erased while the system runs: nothing of its texts is left, all else holds."""

import msgspec

from tests.flows.test_erase import columns_with
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

CANARY = "canary-of-a-customer"


async def test_a_paid_order_is_erased_and_everything_else_holds(scenario: Scenario) -> None:
    order = await scenario.place(
        subject=f"Tea for {CANARY}",
        metadata={"customer": CANARY},
        return_url=f"https://shop.example/thanks?customer={CANARY}",
    )
    code, out = await scenario.nodrop("orders", "erase", order.order_no, "--yes", "--reason", "x")
    assert code == 1
    assert f"payment {number_of(order)} is open" in out
    await scenario.pay(order, "none")
    await scenario.until("paid", order)
    await eventually(lambda: scenario.was_notified(order, "order.paid"))
    await eventually(lambda: _is_handled(scenario, number_of(order)))

    code, out = await scenario.nodrop("orders", "export", order.order_no)
    assert code == 0
    exported = msgspec.json.decode(out)
    assert exported["orders"][0]["metadata"] == {"customer": CANARY}
    assert CANARY in exported["callbacks"][0]["body"]
    assert CANARY in exported["notifications"][0]["body"]
    code, out = await scenario.nodrop("orders", "erase", order.order_no, "--by", "alice", "--yes", "--reason", "x")
    assert (code, out) == (0, f"erased {order.order_no}: 1 callbacks, 1 notifications, 0 cases\n")

    assert await columns_with(scenario.db, CANARY) == set()
    assert (await scenario.http.get(order.order_page)).status_code == 200
    view = await scenario.view(order)
    assert (view["status"], view["subject"], view["metadata"]) == ("paid", "", {})
    assert (await scenario.effect_of(order)) is not None
    assert [event.kind for event in await scenario.events(order)][-1] == "erased"
    assert await scenario.request_callback(order) == 200, "it is known as a copy"


async def _is_handled(scenario: Scenario, number: str) -> bool:
    return all(row["is_handled"] for row in await scenario.callbacks(number))
