"""Work on cases: the second of two operators learns who was faster, and wrong words are refused."""

import pytest
import pytest_asyncio

from core.errors import InvalidRequest, NotFound, NotPossible
from core.order import CaseReason
from flows import cases
from runtime.resources import Resources
from storage.postgres.cases import CaseRow, find_case

_OPEN = """
INSERT INTO cases (order_no, channel_account, reason, detail) VALUES ($1, 'main', $2, 'x') RETURNING id"""


@pytest_asyncio.fixture(loop_scope="session")
async def case(resources: Resources, request: pytest.FixtureRequest) -> CaseRow:
    order_no = request.node.name[:60]
    case_id = await resources.db.fetchval(_OPEN, order_no, CaseReason.PAID_LATE.value)
    found = await find_case(resources.db, case_id)
    assert found is not None
    return found


async def test_the_second_operator_learns_who_has_the_case(resources: Resources, case: CaseRow) -> None:
    taken = await cases.assign(resources.db, case.id, " anna ", version=case.version)
    assert taken.assignee == "anna"
    with pytest.raises(NotPossible, match="anna"):
        await cases.assign(resources.db, case.id, "bert", version=case.version)
    with pytest.raises(NotPossible, match="anna"):
        await cases.resolve(resources.db, case.id, resolution="seen", by="bert", version=case.version)
    back = await cases.assign(resources.db, case.id, None, version=taken.version)
    with pytest.raises(NotPossible, match="given back"):
        await cases.assign(resources.db, case.id, "bert", version=taken.version)
    resolved = await cases.resolve(resources.db, case.id, resolution=" refunded ", by="anna", version=back.version)
    assert (resolved.resolution, resolved.by) == ("refunded", "anna")
    with pytest.raises(NotPossible, match="anna has resolved"):
        await cases.resolve(resources.db, case.id, resolution="again", by="bert")


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\nb", "a\u202eb"])
async def test_a_name_that_is_none_is_refused(resources: Resources, case: CaseRow, name: str) -> None:
    with pytest.raises(InvalidRequest, match="assignee"):
        await cases.assign(resources.db, case.id, name, version=case.version)


@pytest.mark.parametrize("text", ["", "  ", "x" * 501])
async def test_a_resolution_says_something(resources: Resources, case: CaseRow, text: str) -> None:
    with pytest.raises(InvalidRequest, match="resolution"):
        await cases.resolve(resources.db, case.id, resolution=text, by="anna")


async def test_a_case_that_is_not_there_is_not_found(resources: Resources) -> None:
    with pytest.raises(NotFound):
        await cases.get_case(resources.db, 10**12)
    with pytest.raises(NotFound):
        await cases.assign(resources.db, 10**12, "anna", version=1)
