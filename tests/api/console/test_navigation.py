"""The navigation is whole, counts what waits for people, and every page says what lies above it."""

import re

import pytest

from api.console import navigation
from api.console.routes import ROWS
from api.console.texts import LANGUAGES
from core.operators import Role
from runtime.resources import Resources
from tests.api.conftest import terms
from tests.api.console.conftest import SignedIn
from tests.api.driver import Client

_DEAD = """
INSERT INTO notifications (id, order_no, version, type, url, body, dead_at)
SELECT 'msg_' || n, $1, 100 + n, 'order.paid', 'https://shop.test/hook', '', now() FROM generate_series(1, 120) n"""


def test_each_family_is_in_one_group_and_has_a_key_of_its_own() -> None:
    families = sorted(row.nav for row in ROWS if row.nav)
    assert sorted(name for group in navigation.GROUPS for name in group) == families
    assert sorted(navigation.KEYS) == families
    letters = [*navigation.KEYS.values(), "m"]
    assert len(set(letters)) == len(letters)
    assert not set(letters) & {"g"}, "g begins"


def test_every_page_above_another_has_a_name_in_every_language() -> None:
    pages = {row.route.pattern for row in ROWS if row.route.method == "GET"}
    assert {*navigation.PARENTS, *navigation.PARENTS.values(), *navigation.TITLES} <= pages
    for language in LANGUAGES.values():
        assert all(language.texts[key] for key in navigation.TITLES.values())


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("/ops", []),
        ("/ops/me", []),
        ("/ops/orders", []),
        ("/ops/orders/A%2F1", ["/ops/orders"]),
        ("/ops/orders/A-1/refund/n", ["/ops/orders", "/ops/orders/A-1"]),
        ("/ops/notifications/resend", ["/ops/notifications"]),
        ("/ops/days/main/2026-11-27", ["/ops/days"]),
        ("/ops/disputes", ["/ops/days"]),
        ("/ops/reconciliation/7", ["/ops/days", "/ops/reconciliation"]),
        ("/ops/accounts/main/disable", ["/ops", "/ops/accounts/main"]),
        ("/ops/callbacks/7/raw", ["/ops/callbacks", "/ops/callbacks/7"]),
    ],
)
def test_pages_lie_below_others(path: str, above: list[str]) -> None:
    assert [address for address, _ in reversed(list(navigation._above(path)))] == above


async def test_what_waits_is_counted_beside_its_family_and_in_the_title(
    signed_in: SignedIn, client: Client, resources: Resources
) -> None:
    order_no = (await client.post("/v1/orders", terms())).json["order_no"]
    viewer = await signed_in(Role.VIEWER)
    assert "<title>Cases – nodrop</title>" in (await viewer.get("/ops/cases")).body.decode()
    await resources.db.execute("INSERT INTO cases (order_no, reason) VALUES ($1, 'paid_late'), ($1, 'other')", order_no)
    await resources.db.execute(_DEAD, order_no)
    page = (await viewer.get("/ops/cases")).body.decode()
    assert "<title>(2) Cases – nodrop</title>" in page
    assert re.search(r'Cases<span class="count" data-count="c">2<span class="unseen"> open</span></span></a>', page)
    assert re.search(
        r'Notifications<span class="count bad" data-count="n">99\+<span class="unseen"> given up</span>', page
    )
    assert "<title>(99+) Notifications – nodrop</title>" in (await viewer.get("/ops/notifications")).body.decode()
    assert "<title>Overview – nodrop</title>" in (await viewer.get("/ops")).body.decode()
    part = await viewer.get("/ops/waiting/live", sec_fetch_dest="empty")
    assert re.findall(r'data-count="(.)">([^<]+)<', part.body.decode()) == [("c", "2"), ("n", "99+")]


async def test_a_part_of_a_page_counts_nothing(
    signed_in: SignedIn, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counted(_db: object) -> None:
        raise AssertionError("a part of a page has no navigation")

    order_no = (await client.post("/v1/orders", terms())).json["order_no"]
    monkeypatch.setattr("api.console.rows.count_open_work", counted)
    viewer = await signed_in(Role.VIEWER)
    for path in (f"/ops/orders/{order_no}/live", "/ops/overview/live"):
        assert (await viewer.get(path, sec_fetch_dest="empty")).status == 200
