"""An operator erases what is personal about an order, once nothing about it is open. The history says so."""

from __future__ import annotations

from functools import partial

from msgspec import Struct

from core.acts import Line, Preview
from core.decision import Outcome
from core.errors import InvalidRequest, NotFound
from core.lifecycle import on_erase, open_work
from core.order import OrderState
from flows.commit import commit_decision
from runtime.resources import Resources
from storage.postgres.orders import find_state
from storage.postgres.personal_data import Erased, OpenDeliveries, erase_rows, find_open_deliveries


class ErasedOrder(Struct, frozen=True, kw_only=True):
    """An order without personal texts, and counts of the rows beside it that lost theirs."""

    state: OrderState
    rows: Erased


async def check_erasable(resources: Resources, order_no: str, *, dead_letters: bool) -> None:
    """Raises as `erase_order`; changes nothing."""
    state = await find_state(resources.db, order_no)
    if state is None:
        raise NotFound(f"there is no order {order_no}")
    deliveries = await find_open_deliveries(resources.db, order_no)
    _refuse(order_no, [*open_work(state), *_open_deliveries(deliveries, dead_letters=dead_letters)])


async def preview_erasing(resources: Resources, order_no: str, *, dead_letters: bool) -> Preview:
    """Effects of erasing the order.

    Raises:
        NotFound, InvalidRequest: as `erase_order`.
    """
    await check_erasable(resources, order_no, dead_letters=dead_letters)
    lines = (Line("erase.texts", {"order_no": order_no}), Line("erase.keeps"))
    return Preview(lines=lines, warnings=(Line("erase.gives_up"),) if dead_letters else ())


async def erase_order(resources: Resources, order_no: str, *, by: str, dead_letters: bool) -> ErasedOrder:
    """Erase the order through the door, then the rows beside it; to do it again ends what was cut off.

    `dead_letters`: also notifications that were never delivered.

    Raises:
        NotFound: there is no such order.
        InvalidRequest: something about it is open, and says what.
    """
    await check_erasable(resources, order_no, dead_letters=dead_letters)
    committed = await commit_decision(resources, order_no, partial(on_erase, by_name=by))
    state = committed.state_after
    if state is None:
        raise NotFound(f"there is no order {order_no}")
    if committed.decision.outcome is Outcome.NOT_ERASABLE:  # since it was checked
        _refuse(order_no, list(open_work(state)))
    return ErasedOrder(state=state, rows=await erase_rows(resources.db, order_no, dead_letters=dead_letters))


def _open_deliveries(deliveries: OpenDeliveries, *, dead_letters: bool) -> list[str]:
    """Sentences about messages that have not arrived."""
    sentences = []
    if deliveries.callbacks:
        sentences.append(f"{deliveries.callbacks} callbacks about it are not handled yet")
    if deliveries.notifications:
        sentences.append(f"{deliveries.notifications} notifications are not delivered yet")
    if deliveries.dead_letters and not dead_letters:
        sentences.append(
            f"{deliveries.dead_letters} notifications were never delivered: `nodrop notifications resend --dead`, or"
            " give up with --dead-letters"
        )
    return sentences


def _refuse(order_no: str, sentences: list[str]) -> None:
    if sentences:
        raise InvalidRequest(f"order {order_no} cannot be erased: " + "; ".join(sentences))
