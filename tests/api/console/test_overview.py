"""The overview and the page of one account: figures, spans, silent accounts, and texts of strangers."""

import re
from datetime import timedelta
from urllib.parse import quote

import pytest

from core.operators import Role
from core.rollups import SPANS, Step, bucket_of
from runtime.resources import Resources
from storage.postgres.accounts import enable_account
from storage.postgres.orders import find_now
from tests.api.console.conftest import SignedIn
from tests.api.driver import Response

EVIL = "https://shop.test/<script>alert(1)</script>"


SPAN_NAMES = {"1h": "Last hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}


def text_of(response: Response) -> str:
    return response.body.decode()


async def roll(resources: Resources, scope: str, name: str, figures: str) -> None:
    """Figures in the current bucket of each length."""
    now = await find_now(resources.db)
    for step in Step:
        await resources.db.execute(
            "INSERT INTO rollups (step, at, scope, name, figures) VALUES ($1, $2, $3, $4, $5::text::jsonb)",
            *(int(step), bucket_of(now, step), scope, name, figures),
        )


async def make_silent(resources: Resources, account: str) -> None:
    """Ten payments of an account that no callback told of."""
    now = await find_now(resources.db)
    for index in range(10):
        at = now - timedelta(minutes=5 + index)
        await resources.db.execute(
            "INSERT INTO orders (order_no, amount, currency, subject, status, version, page_token, created_at,"
            " expires_at) VALUES ($1, 100, 'CNY', 'Tea', 'paying', 1, $1, $2, $2)",
            f"S-{index}",
            at,
        )
        await resources.db.execute(
            "INSERT INTO payments (channel_account, out_trade_no, order_no, attempt_no, origin, amount, currency,"
            " status, payable_until, created_at, paid_at, channel_transaction_id)"
            " VALUES ($1, $2, $2, 1, 'ours', 100, 'CNY', 'paid', $3, $3, $3, $2)",
            *(account, f"S-{index}", at),
        )


async def test_the_overview_is_whole_without_a_script(signed_in: SignedIn, resources: Resources) -> None:
    await roll(resources, "all", "", '{"placed": 12, "closed": 3}')
    await roll(
        resources,
        "account",
        "main",
        '{"paid": 9, "by:callback": 5, "by:query": 4, "paid_amount:CNY": 88800, "expected": 9, "unheard": 4,'
        ' "unheard_amount:CNY": 35520, "repaired_s:6": 4, "paid_s:6": 9, "calls": 40,'
        ' "calls_unanswered": 2, "call_s:1": 40}',
    )
    await roll(resources, "endpoint", EVIL, '{"delivered": 7, "first_try": 6, "tries": 8, "tries_failed": 1}')
    client = await signed_in(Role.VIEWER)
    for span in SPANS:
        page = await client.get(f"/ops?span={span}")
        assert page.status == 200, page.body
        for part in ("4 of 9", "¥355.20", "¥888.00", "callback", "<svg", "&lt;script&gt;", "/ops/accounts/main"):
            assert part in text_of(page), (span, part)
        assert "<script>alert" not in text_of(page)
        assert f'aria-current="true">{SPAN_NAMES[span]}<' in text_of(page)


async def test_the_fragment_has_the_parts_of_the_page_and_no_frame(signed_in: SignedIn) -> None:
    client = await signed_in(Role.VIEWER)
    page, part = await client.get("/ops?span=7d"), await client.get("/ops/overview/live?span=7d")
    assert part.status == 200
    assert "<html" not in text_of(part)
    for name in ("silent", "now", "span", "charts", "accounts", "endpoints", "as-of"):
        assert f'data-part="{name}"' in text_of(part)
        assert f'data-part="{name}"' in text_of(page)
    assert 'data-live="/ops/overview/live?span=7d"' in text_of(page)


@pytest.mark.parametrize("path", ["/ops", "/ops/overview/live", "/ops/accounts/main"])
async def test_a_span_that_there_is_not_is_a_fault_of_the_address(signed_in: SignedIn, path: str) -> None:
    client = await signed_in(Role.VIEWER)
    assert (await client.get(f"{path}?span=2h")).status == 400


async def test_an_account_whose_callbacks_stopped_stands_at_the_top(
    signed_in: SignedIn, resources: Resources, account: str
) -> None:
    await make_silent(resources, account)
    client = await signed_in(Role.VIEWER)
    page = await client.get("/ops")
    assert "Callbacks have stopped" in text_of(page)
    assert text_of(page).index("Callbacks have stopped") < text_of(page).index('id="now"')
    assert "Callbacks have stopped" in text_of(await client.get(f"/ops/accounts/{account}"))
    assert "Callbacks have stopped" not in text_of(await client.get("/ops/accounts/other"))


async def test_an_account_shows_its_own_figures(signed_in: SignedIn, resources: Resources, account: str) -> None:
    await roll(resources, "account", account, '{"paid": 5, "by:query": 5, "held:rate": 7, "call_s:0": 3, "calls": 3}')
    await roll(resources, "account", "other", '{"paid": 777, "by:sweep": 777}')
    client = await signed_in(Role.VIEWER)
    page = await client.get(f"/ops/accounts/{account}?span=24h")
    assert "rate 7" in text_of(page)
    assert ">777<" not in text_of(page)
    assert (await client.get(f"/ops/accounts/{quote('<b>', safe='')}")).status == 404


async def test_who_may_act_finds_the_switch_of_the_account(
    signed_in: SignedIn, resources: Resources, account: str
) -> None:
    """The one that changes something: an account that is on is switched off."""
    for is_enabled, act in ((True, "disable"), (False, "enable")):
        await enable_account(resources.db, account, enabled=is_enabled)
        for role, wanted in ((Role.VIEWER, []), (Role.OPERATOR, [act])):
            page = text_of(await (await signed_in(role)).get(f"/ops/accounts/{account}"))
            assert re.findall(rf'href="/ops/accounts/{account}/(\w+)"', page) == wanted, role
    page = text_of(await (await signed_in(Role.OPERATOR)).get("/ops/accounts/removed"))
    assert "/ops/accounts/removed/" not in page


async def test_it_is_there_in_chinese(signed_in: SignedIn) -> None:
    client = await signed_in(Role.VIEWER)
    page = await client.get("/ops", accept_language="zh")
    assert "只靠异步通知会掉的单" in text_of(page)
