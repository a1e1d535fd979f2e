"""The inbox and one case: choice, what to do, who has it, and two operators at once."""

import re
from datetime import timedelta

import pytest

from core.operators import Role
from core.order import CaseReason
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from storage.postgres.orders import find_now
from tests.api.console.conftest import SignedIn

STRANGER = '<script>alert("x")</script>'
_OPEN = """
INSERT INTO cases (order_no, channel_account, reason, detail, opened_at) VALUES ($1, 'main', $2, $3, $4) RETURNING id"""


async def opened(resources: Resources, order_no: str = "A-1", *, hours: float = 0, detail: str = "x") -> int:
    at = await find_now(resources.db) - timedelta(hours=hours)
    case_id = await resources.db.fetchval(_OPEN, order_no, CaseReason.PAID_LATE.value, detail, at)
    assert isinstance(case_id, int)
    return case_id


def listed(body: bytes) -> list[int]:
    return [int(number) for number in re.findall(r'<tr data-case="(\d+)"', body.decode())]


async def test_the_inbox_has_the_oldest_first_and_escapes_what_strangers_wrote(
    signed_in: SignedIn, resources: Resources
) -> None:
    newer = await opened(resources, "A-1", detail=STRANGER)
    older = await opened(resources, "A-2", hours=30)
    page = await (await signed_in(Role.VIEWER)).get("/ops/cases")
    assert (page.status, listed(page.body)) == (200, [older, newer])
    text = page.body.decode()
    assert STRANGER not in text
    assert "&lt;script&gt;" in text
    assert "Paid after the close" in text
    assert 'href="/ops/orders/A-2"' in text
    assert 'data-press="a"' not in text, "a viewer takes no case"


async def test_the_inbox_is_chosen_by_reason_age_and_operator(signed_in: SignedIn, resources: Resources) -> None:
    client = await signed_in(Role.OPERATOR)
    old, new = await opened(resources, "A-1", hours=30), await opened(resources, "A-2")
    assert listed((await client.get("/ops/cases?age=day")).body) == [old]
    assert listed((await client.get("/ops/cases?reason=disputed")).body) == []
    await client.post(f"/ops/cases/{new}/assign", {"version": "1"})
    assert listed((await client.get("/ops/cases?whose=mine")).body) == [new]
    assert listed((await client.get("/ops/cases?whose=nobody")).body) == [old]
    assert (await client.get("/ops/cases?age=year")).status == 400
    assert (await client.get("/ops/cases?cursor=x")).status == 400


@pytest.mark.parametrize(
    ("lang", "what"), [("en", "Money arrived after the order was closed."), ("zh", "订单关闭之后款项到账。")]
)
async def test_a_case_says_what_to_do_in_the_operators_language(
    signed_in: SignedIn, resources: Resources, lang: str, what: str
) -> None:
    case_id = await opened(resources)
    page = await (await signed_in(Role.VIEWER)).get(f"/ops/cases/{case_id}", accept_language=lang)
    assert page.status == 200
    text = page.body.decode()
    assert what in text
    assert "<code>nodrop orders accept ORDER_NO --reason REASON --by NAME</code>" in text
    assert "/resolve" not in text, "a viewer resolves none"


async def test_of_two_operators_the_second_learns_who_has_the_case(signed_in: SignedIn, resources: Resources) -> None:
    case_id = await opened(resources)
    anna, bert = await signed_in(Role.OPERATOR, "anna"), await signed_in(Role.OPERATOR, "bert")
    taken = await anna.act(f"/ops/cases/{case_id}/assign", {"version": "1"})
    assert f"Case {case_id} is".encode() in taken.body
    late = await bert.post(f"/ops/cases/{case_id}/assign", {"version": "1"})
    assert late.status == 409
    assert b"<bdi>anna</bdi> has case" in late.body
    given = await bert.act(f"/ops/cases/{case_id}/assign", {"version": "2", "assignee": "carl"})
    assert b"carl" in given.body
    back = await bert.act(f"/ops/cases/{case_id}/assign", {"version": "3", "nobody": "1"})
    assert b"nobody" in back.body
    acts = [(act.by, act.action, act.detail) for act in await list_acts(resources.db, subject=str(case_id), limit=9)]
    assert acts[0] == ("bert", "case.assign", {"to": None})
    assert len(acts) == 4


async def test_a_case_that_is_not_there_is_a_page(signed_in: SignedIn) -> None:
    client = await signed_in(Role.OPERATOR)
    for address in ("/ops/cases/999999999", "/ops/cases/x", "/ops/cases/99999999999999999999"):
        assert (await client.get(address)).status == 404
    assert (await client.post("/ops/cases/1/assign", {"version": "x"})).status == 400


async def test_a_reason_of_another_version_is_shown_as_it_is(signed_in: SignedIn, resources: Resources) -> None:
    case_id = await resources.db.fetchval("INSERT INTO cases (reason) VALUES ('of_tomorrow') RETURNING id")
    client = await signed_in(Role.VIEWER)
    assert b"<code>of_tomorrow</code>" in (await client.get("/ops/cases")).body
    assert b"does not know this reason" in (await client.get(f"/ops/cases/{case_id}")).body


async def test_a_case_is_resolved_with_a_reason_at_the_version_that_was_seen(
    signed_in: SignedIn, resources: Resources
) -> None:
    case_id = await opened(resources)
    anna, bert = await signed_in(Role.OPERATOR, "anna"), await signed_in(Role.OPERATOR, "bert")
    here = f"/ops/cases/{case_id}/resolve"
    form = (await anna.get(f"{here}?choice=note")).body.decode()
    assert 'name="case_version" value="1"' in form
    await bert.act(f"/ops/cases/{case_id}/assign", {"version": "1"})
    for choice in ("note", "accept"):
        late = await anna.post(here, {"case_version": "1", "choice": choice, "reason": "seen"})
        assert (late.status, b"has case" in late.body) == (409, True)
    note = {"case_version": "2", "choice": "note"}
    assert (await bert.post(here, note)).status == 400
    assert (await bert.post(here, note | {"case_version": "9999999999", "reason": "x"})).status == 400
    page = await bert.act(here, note | {"reason": "the buyer has the goods"})
    assert b"the buyer has the goods" in page.body
    assert b"/resolve" not in page.body
    assert (await anna.get(here)).status == 303
    acts = [(act.by, act.action, act.detail) for act in await list_acts(resources.db, subject=str(case_id), limit=1)]
    assert acts == [("bert", "case.resolve", {"choice": "note", "reason": "the buyer has the goods"})]
