"""The buyer's card is declined after the approval at PayPal: another way to pay starts at once, and nobody pays twice.

Orders were lost there: every other payment was refused as unclear for hours, while the capture was tried in vain.
"""

from functools import partial

from simulator.shoppers.shop import ShopOrder
from tests.scenarios.five_channels import calls_about, ledger_status, notified_once, place_at
from tests.scenarios.scenario import Scenario, number_of
from tests.servers import eventually

_LET_PASS = "UPDATE payments SET payable_until = now() - interval '1 hour' WHERE out_trade_no = $1"
_MAKE_DUE = "UPDATE pending SET due_at = least(due_at, now()) WHERE out_trade_no = $1"


async def test_a_declined_buyer_pays_another_way_at_once(scenario: Scenario) -> None:
    order = await _declined(scenario)

    order = await scenario.add_payment(order, "sandbox")
    await scenario.pay(order, "lost", nth=2)

    await scenario.until("paid", order)
    await notified_once(scenario, order)
    assert await ledger_status(scenario, order) == "unpaid"
    assert (await calls_about(scenario, order)).count("capture") == 1


async def test_a_declined_capture_is_left_alone_until_the_buyer_comes_back(scenario: Scenario) -> None:
    """No query captures, however often it finds the old approval. Back with another card, the buyer has paid."""
    order = await _declined(scenario)
    await scenario.faults()
    for _ in range(3):
        await scenario.refresh(order)
    await scenario.make_due(order)
    await eventually(partial(_was_queried, scenario, order, 3))
    assert await scenario.status(order) == "paying"
    assert (await calls_about(scenario, order)).count("capture") == 1

    await scenario.pay(order, "lost")
    await scenario.return_from_channel(order)

    await scenario.until("paid", order)
    assert (await calls_about(scenario, order)).count("capture") == 2


async def test_what_was_given_up_is_never_captured(scenario: Scenario) -> None:
    """The buyer started another payment, then took another card at PayPal after all, and then paid the other one."""
    order = await _declined(scenario)
    order = await scenario.add_payment(order, "sandbox")
    await scenario.put_off(order)
    await scenario.faults()

    await scenario.pay(order, "none")
    await eventually(partial(_are_handled, scenario, order, 2))
    await scenario.return_from_channel(order)
    assert await scenario.status(order) == "paying"
    await scenario.pay(order, "none", nth=2)

    await scenario.until("paid", order)
    await notified_once(scenario, order)
    assert await ledger_status(scenario, order) == "unpaid"
    assert await scenario.cases(number_of(order, 2)) == []


async def test_approval_that_paypal_reverses_is_kept_and_the_next_start_asks_for_a_new_one(scenario: Scenario) -> None:
    """Nobody captured in time, and PayPal gave the buyer the money back. The dead link was handed out for hours."""
    order = await _declined(scenario)
    await scenario.faults()
    path = f"/control/payments/{number_of(order)}/reverse-approval"
    await scenario.stack.control("POST", "channel", path)
    await eventually(partial(_are_handled, scenario, order, 2))
    assert await scenario.observed(order, "lapsed_seen") >= 1
    assert await ledger_status(scenario, order) == "closed"

    order = await scenario.add_payment(order, "paypal")
    assert number_of(order, 2) != number_of(order)
    await scenario.pay(order, "none", nth=2)

    await scenario.until("paid", order)
    await notified_once(scenario, order)
    assert (await calls_about(scenario, order)).count("capture") == 1


async def test_nothing_is_captured_when_another_payment_was_paid_unheard(scenario: Scenario) -> None:
    """Its callback is lost. Without asking first, the buyer would have paid twice."""
    order = await place_at(scenario, "paypal")
    order = await scenario.add_payment(order, "sandbox")
    await scenario.put_off(order)
    await scenario.pay(order, "lost", nth=2)

    await scenario.pay(order, "none")

    await scenario.until("paid", order)
    await notified_once(scenario, order)
    assert "capture" not in await calls_about(scenario, order)
    assert await ledger_status(scenario, order) == "unpaid"
    assert await scenario.cases(number_of(order, 2)) == []
    await eventually(partial(_is_followed_no_more, scenario, order))


async def _declined(scenario: Scenario) -> ShopOrder:
    """An order whose buyer has approved, and whose card was declined."""
    order = await place_at(scenario, "paypal")
    await scenario.put_off(order)
    await scenario.faults(capture_declined=1.0)
    await scenario.pay(order, "none")
    await eventually(partial(_is_refused, scenario, order))
    return order


async def _is_refused(scenario: Scenario, order: ShopOrder) -> bool:
    return "capture_refused" in [event.kind for event in await scenario.events(order)]


async def _are_handled(scenario: Scenario, order: ShopOrder, count: int) -> bool:
    callbacks = await scenario.callbacks(number_of(order))
    return len(callbacks) == count and all(callback["is_handled"] for callback in callbacks)


async def _was_queried(scenario: Scenario, order: ShopOrder, count: int) -> bool:
    return len(await scenario.query_times(order)) >= count


async def _is_followed_no_more(scenario: Scenario, order: ShopOrder) -> bool:
    """Let the end of the approved payment pass, until which it is followed. Again and again: a query or a close that is
    under way plans its next one by the end that it has read.
    """
    number = number_of(order)
    await scenario.db.execute(_LET_PASS, number)
    await scenario.db.execute(_MAKE_DUE, number)
    return not await scenario.db.fetchval("SELECT count(*) FROM pending WHERE out_trade_no = $1", number)
