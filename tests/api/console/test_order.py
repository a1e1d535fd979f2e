"""One order's page: its story with the evidence, what comes next, and no markup of a stranger's."""

import re
from datetime import UTC, datetime
from html import unescape

import msgspec
import pytest

from core.deliveries import Attempt
from core.operators import Role
from runtime.resources import Resources
from storage.postgres.order_facts import find_facts
from tests.api.conftest import Channel, terms
from tests.api.console.conftest import SignedIn
from tests.api.driver import Client, Response

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def text_of(page: Response) -> str:
    """The text that a person reads."""
    assert page.status == 200, page.body.decode()
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.body.decode())).split())


async def test_an_order_is_told_from_its_placing_to_its_payment(
    signed_in: SignedIn, client: Client, channel: Channel, account: str
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    console = await signed_in(Role.VIEWER)
    before = text_of(await console.get(f"/ops/orders/{placed['order_no']}"))
    for sentence in (
        "Placed: 88.88 CNY",
        f"Query 1 of {account}",
        "Closed unless paid",
        f"The link of {account} was given out",
    ):
        assert sentence in before
    await channel.pay(placed["payments"][0]["out_trade_no"])
    await client.post(f"/v1/orders/{placed['order_no']}/refresh")
    after = text_of(await console.get(f"/ops/orders/{placed['order_no']}"))
    assert f"refresh: paid at {account}. The order is paid" in after
    assert "Channel's transaction" in after
    assert "Nothing: it is paid" in after


async def test_an_order_is_told_in_the_readers_language(signed_in: SignedIn, client: Client) -> None:
    order_no = (await client.post("/v1/orders", terms())).json["order_no"]
    console = await signed_in(Role.VIEWER)
    page = text_of(await console.get(f"/ops/orders/{order_no}", accept_language="zh-CN"))
    assert "下单：¥88.88" in page
    assert "未付款则关单" in page


async def test_codes_are_words_in_the_readers_language(
    signed_in: SignedIn, client: Client, resources: Resources, account: str
) -> None:
    order_no = (await client.post("/v1/orders", terms(account=account))).json["order_no"]
    await fill_with(resources, order_no, "x")
    await resources.db.execute(
        "INSERT INTO refused_callbacks (channel_account, body_hash, headers, body_bytes, verdict, detail, order_no,"
        " out_trade_no, network) VALUES ('main', decode(repeat('00', 32), 'hex'), '{}', 2, 'forged', '', $1, 'x', '')",
        order_no,
    )
    await resources.db.execute("UPDATE callbacks SET outcome = 'nothing_new', handled_at = now()")
    console = await signed_in(Role.VIEWER)
    for language, words in (
        ("en", ("late money", "claim · open", "nothing definite", "bad signature", "(nothing new)")),
        ("zh", ("关单后到账", "索赔 · 未答复", "没有确定结论", "签名错误")),
    ):
        page = text_of(await console.get(f"/ops/orders/{order_no}", accept_language=language))
        assert [word for word in words if word not in page] == []
        assert "nothing_new" not in page


async def test_operators_find_what_people_did_about_an_order(signed_in: SignedIn, client: Client) -> None:
    order_no = (await client.post("/v1/orders", terms())).json["order_no"]
    link = f'href="/ops/audit?subject={order_no}"'
    for role, is_there in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        page = await (await signed_in(role)).get(f"/ops/orders/{order_no}")
        assert (link in page.body.decode()) is is_there


@pytest.mark.parametrize("order_no", ["none", "%00", "..", "a%2Fb"])
async def test_an_order_that_is_not_there_is_a_page_that_says_so(signed_in: SignedIn, order_no: str) -> None:
    console = await signed_in(Role.VIEWER)
    for path in ("", "/live"):
        assert (await console.get(f"/ops/orders/{order_no}{path}")).status == 404


async def test_the_parts_that_change_are_sent_when_something_has_changed(
    signed_in: SignedIn, client: Client, channel: Channel, account: str
) -> None:
    placed = (await client.post("/v1/orders", terms(account=account))).json
    path = f"/ops/orders/{placed['order_no']}"
    console = await signed_in(Role.VIEWER)
    page = await console.get(path)
    [tag] = re.findall(r'data-tag="([^"]+)"', page.body.decode())
    same = await console.get(f"{path}/live", if_none_match=unescape(tag))
    assert (same.status, same.body) == (304, b"")
    await channel.pay(placed["payments"][0]["out_trade_no"])
    await client.post(f"/v1/orders/{placed['order_no']}/refresh")
    changed = await console.get(f"{path}/live", if_none_match=unescape(tag))
    assert (changed.status, changed.headers["etag"] != unescape(tag)) == (200, True)
    assert b"<html" not in changed.body
    assert "The order is paid" in text_of(changed)


async def fill_with(db_resources: Resources, order_no: str, text: str) -> None:
    """Put the text wherever a buyer, a merchant, a channel or a merchant's server could set one."""
    db = db_resources.db
    json_text = msgspec.json.encode(text).decode()
    await db.execute(
        "UPDATE orders SET version = version + 1, subject = $1, notify_url = $1, return_url = $1,"
        " metadata = jsonb_build_object($1::text, $1::text) WHERE order_no = $2",
        text,
        order_no,
    )
    await db.execute(
        "UPDATE payments SET method = $1, channel_reference = $1, channel_transaction_id = $1, status = 'paid',"
        " paid_at = now() WHERE order_no = $2",
        text,
        order_no,
    )
    await db.execute(
        "UPDATE order_events SET note = $1, kind = CASE version WHEN 1 THEN $1 ELSE kind END,"
        " evidence = jsonb_build_object('kind', $1::text, $1::text, $1::text, 'ids', ARRAY[$1::text])"
        " WHERE order_no = $2",
        text,
        order_no,
    )
    await db.execute(
        "INSERT INTO observations (order_no, kind, by, channel_account, out_trade_no, note)"
        " VALUES ($2, $1, $1, $1, $1, $1), ($2, 'unclear_seen', 'query', $1, $1, $1)",
        text,
        order_no,
    )
    await db.execute(
        "INSERT INTO cases (order_no, reason, detail, resolved_at, resolution, by)"
        " VALUES ($2, 'disputed', $1, NULL, NULL, NULL), ($2, 'other', $1, now(), $1, $1)",
        text,
        order_no,
    )
    await db.execute(
        "INSERT INTO notifications (id, order_no, version, type, url, body, last_status, attempts)"
        " VALUES ('msg_x', $2, 99, $1, $1, '', $1, $3::text::jsonb)",
        text,
        order_no,
        msgspec.json.encode([Attempt(no=1, at=AT, latency_ms=12, status=text, answer=f"{text} ANSWERED")]).decode(),
    )
    await db.execute(
        "INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, reason, outcome,"
        " opened_at, changed_at, respond_by)"
        " SELECT channel_account, out_trade_no, $1, order_no, 'claim', 'open', $1, $1, now(), now(), now()"
        "   FROM payments WHERE order_no = $2",
        text,
        order_no,
    )
    await db.execute(
        "INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,"
        " requested_at, last_error, channel_refund_no)"
        " SELECT 'r-x', channel_account, out_trade_no, order_no, 1, currency, 'late', 'requested', now(), $1, $1"
        "   FROM payments WHERE order_no = $2",
        text,
        order_no,
    )
    await db.execute(
        "INSERT INTO callbacks (channel_account, notification_id, body_hash, received_at, headers, body, evidence,"
        " out_trade_no, due_at, outcome)"
        " SELECT channel_account, $1, decode(repeat('00', 32), 'hex'), now(), '{}', '', $3::text::jsonb, out_trade_no,"
        "        now(), $1 FROM payments WHERE order_no = $2",
        text,
        order_no,
        '{"kind": "unclear", "channel_account": "main", "out_trade_no": "x", "reason": ' + json_text + "}",
    )


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_no_text_of_a_stranger_is_markup(
    signed_in: SignedIn, client: Client, resources: Resources, account: str, language: str
) -> None:
    order_no = (await client.post("/v1/orders", terms(account=account))).json["order_no"]
    await fill_with(resources, order_no, HOSTILE)
    console = await signed_in(Role.ADMIN)
    for path in (f"/ops/orders/{order_no}", f"/ops/orders/{order_no}/live", "/ops/orders"):
        page = (await console.get(path, accept_language=language)).body.decode()
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)" in page
        scripts = re.findall(r"<script[^>]*>([^<]*)", page)
        assert not any(scripts), "no script stands in a page"


async def test_every_text_that_was_put_there_is_on_the_page(
    signed_in: SignedIn, client: Client, resources: Resources, account: str
) -> None:
    """So the test above looks at all of them."""
    order_no = (await client.post("/v1/orders", terms(account=account))).json["order_no"]
    await fill_with(resources, order_no, "MARKED")
    assert await find_facts(resources.db, order_no) is not None
    page = text_of(await (await signed_in(Role.OPERATOR)).get(f"/ops/orders/{order_no}"))
    assert page.count("MARKED") >= 31
    assert "at the channel MARKED" in page, "the own number of the refund"
    assert "MARKED ANSWERED" in page
    viewed = text_of(await (await signed_in(Role.VIEWER)).get(f"/ops/orders/{order_no}"))
    assert "ANSWERED" not in viewed, "a merchant's answer may hold anything about a buyer"
    assert "Waits for a person: Disputed (MARKED)" in page, "the reason of a case is in words"
