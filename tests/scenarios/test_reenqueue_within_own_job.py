"""A job schedules its successor: under the same id the successor would vanish, and the chain would end."""

from tests.scenarios.scenario import UNIT_S, Scene, gaps
from tests.servers import eventually


async def test_an_unpaid_order_is_asked_about_at_growing_gaps(scene: Scene) -> None:
    """At 1, 4, 9, 16 … units. A busy machine may be later, never earlier."""
    order = await scene.place()

    asked = await eventually(lambda: _asked_times(scene, order.order_no, 4), 20)

    found = gaps(await scene.asked(order))[:3]
    assert found == sorted(found)
    for attempt, gap_s in enumerate(found, 2):
        assert gap_s >= attempt**2 * UNIT_S - 0.05
    assert asked >= 3, "the sweep did it, not the jobs"


async def _asked_times(scene: Scene, order_no: str, times: int) -> int:
    """How many queries came from jobs, once there were so many."""
    rows = await scene.db.fetch("SELECT by FROM observations WHERE order_no = $1", order_no)
    return sum(row["by"] == "query" for row in rows) if len(rows) >= times else 0
