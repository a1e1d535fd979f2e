"""The audit: it only grows, and its page finds rows by index and by key."""

from datetime import UTC, datetime

import asyncpg
import pytest

from core.act_names import ActName
from core.operators import Role
from runtime.resources import Resources
from storage.postgres.audit import Act, Filters, Via, find_acts, list_acts, statement_of, write_act
from tests.api.console.conftest import ConsoleClient, SignedIn

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def reader(signed_in: SignedIn) -> ConsoleClient:
    return await signed_in(Role.OPERATOR)


ACTS = (ActName.ORDER_CLOSE, ActName.ORDER_QUERY, ActName.ORDER_REFUND)


async def put(resources: Resources, count: int) -> None:
    for number in range(count):
        detail = {"reason": f"reason {number}"}
        by, action = f"person{number % 2}", ACTS[number % 3]
        await write_act(resources.db, Act(by=by, via=Via.API, action=action, subject=f"A-{number}", detail=detail))


async def write_as_before(resources: Resources, action: str, subject: str) -> None:
    """A row of an earlier release."""
    await resources.db.execute(
        "INSERT INTO audit (by, via, action, subject) VALUES ('old', 'command', $1, $2)", action, subject
    )


@pytest.mark.parametrize("change", ["UPDATE audit SET by = 'bob'", "DELETE FROM audit", "TRUNCATE audit"])
async def test_no_row_is_changed_or_deleted_by_whoever_owns_the_table(resources: Resources, change: str) -> None:
    await put(resources, 1)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="rows of audit are added"):
        await resources.db.execute(change)
    assert len(await list_acts(resources.db, limit=5)) == 1


async def test_rows_are_found_by_person_act_subject_and_day(reader: ConsoleClient, resources: Resources) -> None:
    await put(resources, 6)
    for query, subjects in (
        ("", 6),
        ("?by=person1", 3),
        ("?action=order.refund", 2),
        ("?subject=A-4", 1),
        ("?by=person0&action=order.refund", 1),
        ("?action=order.nothing", 0),
        ("?by=&action=&subject=&from=&until=", 6),
        ("?from=2020-01-01&until=2020-12-31", 0),
        ("?from=2020-01-01", 6),
        ("?by=nobody", 0),
    ):
        page = (await reader.get(f"/ops/audit{query}")).body.decode()
        assert page.count("reason ") == subjects, query
        assert ("Nothing fits." in page) is (subjects == 0), query


@pytest.mark.parametrize(
    "query", ["?from=x", "?until=2026-13-01", "?before=x", "?before=2026-01-01T00:00:00~x", "?by=1&by=2"]
)
async def test_a_filter_that_cannot_be_read_is_refused(reader: ConsoleClient, query: str) -> None:
    assert (await reader.get(f"/ops/audit{query}")).status == 400


async def test_pages_follow_each_other_by_key_and_miss_no_row(reader: ConsoleClient, resources: Resources) -> None:
    await resources.db.execute(
        "INSERT INTO audit (at, by, via, action, subject)"
        " SELECT '2026-01-01T00:00:00Z', 'alice', 'api', 'act', 'A-' || n || '-' FROM generate_series(1, 230) n"
    )
    seen, target = list[str](), "/ops/audit?by=alice"
    for _ in range(3):
        page = (await reader.get(target)).body.decode()
        seen += [part.partition("-<")[0] for part in page.split("<bdi>A-")[1:]]
        _, found, rest = page.partition('rel="next" href="')
        target = rest.partition('"')[0].replace("&amp;", "&")
        assert bool(found) is (len(seen) < 230)
    assert seen == [str(number) for number in range(230, 0, -1)]


async def test_an_act_is_found_under_the_names_of_earlier_releases_too(
    reader: ConsoleClient, resources: Resources
) -> None:
    await put(resources, 3)
    for number, name in enumerate(("orders refund", "money_refund", "orders close", "nobody.knows")):
        await write_as_before(resources, name, f"B-{number}")
    for name in ("order.refund", "orders refund", "money_refund"):
        rows = await find_acts(resources.db, Filters(action=name), limit=10)
        assert [row.subject for row in rows] == ["B-1", "B-0", "A-2"], name
    assert len(await find_acts(resources.db, Filters(action="order.refund", by="old"), limit=10)) == 2
    assert len(await find_acts(resources.db, Filters(action="order.refund"), limit=2)) == 2
    page = (await reader.get("/ops/audit?action=money_refund")).body.decode()
    assert page.count('title="order.refund">Give back money</a>') == 1
    assert page.count('title="money_refund">Give back money</a>') == 1
    assert '<option value="order.refund" selected>Give back money</option>' in page
    assert ">nobody.knows</a>" in (await reader.get("/ops/audit")).body.decode()


async def test_texts_of_rows_are_text(reader: ConsoleClient, resources: Resources) -> None:
    evil = "<script>alert(1)</script>"
    await write_act(
        resources.db,
        Act(by=evil, via=Via.API, action=ActName.ORDER_CLOSE, subject=evil, detail={evil: [evil], "a": {"b": 1}}),
    )
    await write_as_before(resources, evil, evil)
    page = (await reader.get("/ops/audit")).body.decode()
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
    assert "a.b" in page


async def test_the_file_has_the_rows_and_no_formula(reader: ConsoleClient, resources: Resources) -> None:
    await put(resources, 2)
    await write_act(resources.db, Act(by="=1+1", via=Via.API, action=ActName.ORDER_CLOSE, subject="@x"))
    file = await reader.get("/ops/audit.csv?action=order.close")
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert file.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    lines = file.body.decode("utf-8-sig").splitlines()
    assert len(lines) == 3
    assert "'=1+1" in lines[1]
    assert "'@x" in lines[1]
    (act,) = await find_acts(resources.db, Filters(by="operator"), limit=5)
    assert (act.action, act.detail) == ("audit.csv", {"action": "order.close"})


async def test_an_act_of_several_names_is_read_from_the_index_of_names(resources: Resources) -> None:
    """A page of each name is sorted, and no more."""
    sql, values = statement_of(Filters(action="order.refund", before=(AT, 1)))
    plan = "\n".join(row[0] for row in await resources.db.fetch(f"EXPLAIN {sql}", 10, *values))
    assert "using audit_by_action on audit" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (Filters(), "audit_by_time"),
        (Filters(by="p1"), "audit_by_person"),
        (Filters(action="a1"), "audit_by_action"),
        (Filters(subject="s1"), "audit_by_subject"),
        (Filters(since=AT, until=AT), "audit_by_time"),
        (Filters(before=(AT, 1)), "audit_by_time"),
        (Filters(by="p1", since=AT, before=(AT, 1)), "audit_by_person"),
        (Filters(by="p1", action="a1", until=AT), "audit_by_person_and_action"),
        (Filters(by="p1", subject="s1"), "audit_by_subject"),
    ],
)
async def test_every_list_is_read_from_an_index_in_its_order(
    resources: Resources, filters: Filters, index: str
) -> None:
    """Neither a scan of the table nor a sort, however many rows there are, and whosever most of them are."""
    await resources.db.execute(
        "INSERT INTO audit (at, by, via, action, subject) SELECT now() - make_interval(secs => i),"
        " CASE WHEN i = 999 THEN 'p1' ELSE 'anna' END, 'api', CASE WHEN i = 998 THEN 'a1' ELSE 'order.query' END, ''"
        " FROM generate_series(1, 1000) AS i"
    )
    await resources.db.execute("ANALYZE audit")
    sql, values = statement_of(filters)
    plan = "\n".join(row[0] for row in await resources.db.fetch(f"EXPLAIN {sql}", 10, *values))
    assert f"using {index} on audit" in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan
    assert "Index Cond" in plan
