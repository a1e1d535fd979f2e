"""A job schedules its successor: under the same id the successor would vanish, and the chain would end."""

from tests.scenarios.scenario import UNIT_S, Scenario, gaps
from tests.servers import eventually


async def test_an_unpaid_order_is_asked_about_at_growing_gaps(scenario: Scenario) -> None:
    """At 1, 4, 9, 16 … units. A busy machine may be later, never earlier."""
    order = await scenario.place()

    attempts = await eventually(lambda: _attempts(scenario, order.order_no, 4))

    query_gaps = gaps(await scenario.query_times(order))[:3]
    assert query_gaps == sorted(query_gaps)
    for attempt, gap_s in enumerate(query_gaps, 2):
        assert gap_s >= attempt**2 * UNIT_S - 0.05
    assert attempts >= 3, "the sweep did it, not the jobs"


async def _attempts(scenario: Scenario, order_no: str, times: int) -> int:
    """Number of queries that came from jobs, once there were so many."""
    rows = await scenario.db.fetch("SELECT by FROM observations WHERE order_no = $1", order_no)
    return sum(row["by"] == "query" for row in rows) if len(rows) >= times else 0
