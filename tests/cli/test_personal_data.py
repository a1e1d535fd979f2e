"""`nodrop orders export` and `erase`."""

import pytest

from core.order import OrderState
from runtime.resources import Resources
from tests.cli.conftest import Channel, Place
from tests.cli.nodrop import Nodrop


async def settled(place: Place, channel: Channel, nodrop: Nodrop, order_no: str = "A-1") -> OrderState:
    """Paid, by a query."""
    state = await place(order_no, "canary")
    await channel.pay(state.payments[0].out_trade_no)
    assert (await nodrop("orders", "refresh", order_no, "--reason", "x")).code == 0
    return state


async def test_the_export_is_one_json_document(nodrop: Nodrop, place: Place, channel: Channel) -> None:
    state = await settled(place, channel, nodrop)
    document = (await nodrop("orders", "export", "A-1")).json
    assert (await nodrop("orders", "export", "A-1", "--json")).json.keys() == document.keys()
    assert document["orders"][0]["subject"] == "canary"
    assert document["payments"][0]["out_trade_no"] == state.payments[0].out_trade_no
    assert [event["kind"] for event in document["order_events"]][-1] == "paid"
    ran = await nodrop("orders", "export", "A-2")
    assert (ran.code, ran.line) == (1, "there is no order A-2")


@pytest.mark.parametrize(("answer", "is_erased"), [(b"y\n", True), (b"n\n", False), (b"", False)])
async def test_an_order_is_erased_only_after_a_yes(
    nodrop: Nodrop, place: Place, channel: Channel, answer: bytes, is_erased: bool
) -> None:
    await settled(place, channel, nodrop)
    ran = await nodrop("orders", "erase", "A-1", "--reason", "the buyer wants it", "--by", "alice", stdin=answer)
    assert "Erase what is personal about order A-1, for ever? [y/N]" in ran.err
    assert (ran.code == 0) is is_erased
    document = (await nodrop("orders", "show", "A-1", "--json")).json
    assert (document["order"]["subject"] == "") is is_erased
    assert (document["timeline"][-1]["note"] == "by alice") is is_erased


async def test_it_says_what_it_erased(nodrop: Nodrop, place: Place, channel: Channel) -> None:
    await settled(place, channel, nodrop)
    ran = await nodrop("orders", "erase", "A-1", "--reason", "the buyer wants it", "--yes")
    assert ran == (0, "erased A-1: 0 callbacks, 0 notifications, 0 cases\n", "")
    document = (await nodrop("orders", "erase", "A-1", "--reason", "the buyer wants it", "--yes", "--json")).json
    assert (document["order"]["subject"], document["rows"]) == ("", {"callbacks": 0, "notifications": 0, "cases": 0})
    assert (await nodrop("orders", "erase", "A-1", "--reason", "the buyer wants it", "--by", " ", "--yes")).code == 2


async def test_what_is_open_refuses_it_in_one_line(nodrop: Nodrop, place: Place, resources: Resources) -> None:
    number = (await place("A-1")).payments[0].out_trade_no
    for options in ((), ("--yes",)):
        ran = await nodrop("orders", "erase", "A-1", "--reason", "the buyer wants it", *options)
        assert ran.code == 1
        assert ran.line == (
            "order A-1 cannot be erased: the order is paying: it must be paid or closed first; payment "
            f"{number} is open"
        )
    assert await resources.db.fetchval("SELECT count(*) FROM order_events WHERE kind = 'erased'") == 0
