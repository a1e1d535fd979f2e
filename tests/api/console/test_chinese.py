"""The console in Chinese: no page of a filled database has an English sentence of ours."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import structs
from msgspec.structs import replace

from api.console.routes import ROWS
from api.console.texts import LANGUAGES
from channels.base import StatementRow
from core.admission import CallKind
from core.alerts import (
    WRONG_CLOCKS,
    Broken,
    EndpointCount,
    Facts,
    Invariant,
    OldestDue,
    OpenBreaker,
    OpenCase,
    PausedEndpoint,
    Reconciled,
    Thresholds,
    WorkerClock,
    find_conditions,
    judge,
)
from core.decision import Outcome
from core.dispute import DisputeKind, DisputeState
from core.evidence import Evidence, EvidenceKind
from core.lifecycle import LatePolicy
from core.operators import Role
from core.order import CaseReason, OrderStatus, PaymentStatus, RefundStatus
from core.reconciliation import CASES, Difference, Finding, judge_unknown
from core.sentences import Amount, Moment, Sentence
from core.settings import Settings
from core.silence import SilentAccount
from flows.reconcile.requested import read_requested, request_fetched, upload
from runtime.resources import Resources
from storage.postgres import alerts
from storage.postgres.cases import open_account_case
from storage.postgres.orders import find_now
from storage.postgres.reconciliation.differences import add_differences, open_cases
from storage.postgres.reconciliation.runs import begin, claim_day, fail
from tests.api.conftest import Channel, terms
from tests.api.console.conftest import ConsoleClient, SignedIn
from tests.api.console.test_order import fill_with
from tests.api.driver import Client
from tests.api.test_callbacks import paid_body, send, signed
from tests.api.v1.test_callbacks import is_written
from tests.servers import eventually

CHINESE = {"accept_language": "zh-CN"}
NOW = datetime.now(UTC)
YESTERDAY = (NOW - timedelta(days=1)).date()
HOOK = "https://shop.test/hook"
STRANGER = "a stranger's secret, as long as it is"

ENGLISH = re.compile(r"[A-Za-z]{2,}(?:[ ,;:'()-]+[A-Za-z]{2,}){2,}")
"""Three words in a row, or more."""

DATA = ("bdi", "code", "pre", "script", "style", "kbd")
"""Elements with texts of others, numbers, commands and keys."""

SAID = ("alt", "aria-label", "placeholder", "title")
"""Attributes with texts that a reader gets."""

ROOT = Path(__file__).parents[3]
CHINESE_FILES = (
    *sorted(ROOT.glob("api/*/languages/zh.toml")),
    ROOT / "api/console/sentences/zh.toml",
    ROOT / "flows/guides/zh.toml",
)
OTHER_WORDS = ("回调", "工单", "操作员", "号码", "工作进程", "后台进程")
"""Words for which the glossary has others: 异步通知, 待处理事项, 运维人员, 单号, worker."""

KINDS = ("pending", "callbacks", "notifications", "refunds")

WITHOUT_PAGE = ("/ops/static/{name}", "/ops/signin")


class Texts(HTMLParser):
    """Texts of a page in its own language."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.texts += [named[name] or "" for name in SAID if name in named]
        if tag not in ("br", "hr", "img", "input", "link", "meta", "path", "rect", "line", "use"):
            self._open.append((tag, tag in DATA or named.get("lang") == "en"))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not any(is_data for _, is_data in self._open):
            self.texts.append(data)


def english_in(page: str) -> list[str]:
    parser = Texts()
    parser.feed(page)
    return [match[0] for text in parser.texts for match in ENGLISH.finditer(" ".join(text.split()))]


def text_of(page: str) -> str:
    return re.sub(r"<[^>]+>", "", page)


def test_english_is_found_where_it_is_ours() -> None:
    page = '<p title="the first of them">订单 <bdi>one two three</bdi><input placeholder="the second of them"></p>'
    assert english_in(f"{page}<p lang=en>the third of them</p><p>that is the fourth</p>") == [
        "the first of them",
        "the second of them",
        "that is the fourth",
    ]


@pytest.mark.parametrize("path", CHINESE_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_there_is_one_chinese_word_for_each_thing(path: Path) -> None:
    text = path.read_text("utf-8")
    assert [word for word in OTHER_WORDS if word in text] == []


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("alerts.clock_", WRONG_CLOCKS),
        ("alerts.kind_", KINDS),
        ("callbacks.kind_", get_args(EvidenceKind)),
        ("dispute_kind.", DisputeKind),
        ("dispute_state.", DisputeState),
        ("money.decision_", ("approved", "declined")),
        ("order.payment_", PaymentStatus),
        ("order.refund_", RefundStatus),
        ("orders.status_", OrderStatus),
        ("outcome.", Outcome),
        ("overview.call_", CallKind),
        ("policy.", LatePolicy),
        ("reason.", CaseReason),
        ("role.", Role),
    ],
)
def test_every_word_of_a_sentence_has_a_text(prefix: str, words: Iterable[str]) -> None:
    for lang, language in LANGUAGES.items():
        assert [word for word in words if f"{prefix}{word}" not in language.texts] == [], lang


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, alert_url="https://alerts.example/x", alert_secret=settings.notify_secrets)


def everything_wrong() -> Facts:
    """Facts that make a condition of every rule."""
    return Facts(
        oldest_due=tuple(OldestDue(kind=kind, seconds=9e3) for kind in KINDS),
        dead_letters=(EndpointCount(url=HOOK, count=3),),
        undelivered=(EndpointCount(url=HOOK, count=2, seconds=9e5),),
        paused=(PausedEndpoint(endpoint=HOOK, seconds=9e5),),
        cases=(
            OpenCase(id=1, reason="disputed", of_reason=99, order_no="A-1"),
            OpenCase(id=2, reason="wrong_world", of_reason=1, account="main"),
            OpenCase(id=3, reason="paid_late", of_reason=1),
        ),
        reconciled=(Reconciled(account="main", seconds=9e5),),
        broken=tuple(Broken(order_no="A-1", invariant=each) for each in Invariant),
        silent=(SilentAccount(account="main", payments=10, heard=1, expected_share=0.9, since=datetime.now(UTC)),),
        breakers=(OpenBreaker(account="main", kind="query"),),
        workers=(WorkerClock(process="w-1", clock="contradicted"), WorkerClock(process="w-2", clock="far_off")),
    )


ALERTED = ("订单 A-1 的事项 1 未解决：有争议", "main 的查单调用没有应答，已熔断", "w-1 的时钟与数据库时间矛盾")
LOW = Thresholds(overdue_s=1.0, endpoint_s=1.0, paused_s=1.0, reconciled_s=1.0, workers_min=3)


async def raise_alerts(resources: Resources) -> int:
    conditions = find_conditions(everything_wrong(), LOW)
    judgement = judge([], conditions, looks=1)
    begun = {f"alr_{number:02x}": each for number, each in enumerate(judgement.begun)}
    moved = await alerts.apply(resources.db, judgement, begun, [], now=await find_now(resources.db))
    return len(moved)


async def open_every_kind(resources: Resources, order_no: str, number: str) -> int:
    """A failed run with differences, and cases that it and an account have opened; its id."""
    run = await claim_day(resources.db, "main", YESTERDAY, dry_run=False, lease_s=20.0)
    assert run is not None
    run = await begin(resources.db, run, b"s" * 32)
    row = StatementRow(
        line=1, kind="payment", out_trade_no=number, channel_transaction_id="t-1", amount=8888, currency="CNY", at=NOW
    )
    unknown = judge_unknown(row, ["A-1", "A-2"], exclusive=True)[1]
    at = Moment(datetime.now(UTC), "then")
    amounts = {"there": Amount(1, "CNY"), "here": Amount(8888, "CNY")}
    found = [
        Difference(kind=kind, row_no=at_row, detail=detail, order_no=order_no, out_trade_no=number, case=CASES[kind])
        for at_row, (kind, detail) in enumerate(
            [
                (Finding.AMOUNT, Sentence("{there} there, {here} here", **amounts)),
                (Finding.UNCLAIMED, unknown),
                (
                    Finding.PAID_HERE_ONLY,
                    Sentence(
                        "{amount} {currency} paid here at {at}, no row there",
                        amount=Amount(8888, "CNY"),
                        currency="CNY",
                        at=at,
                    ),
                ),
            ],
            1,
        )
    ]
    await add_differences(resources.db, run.id, found)
    assert await open_cases(resources.db, "main", found) == 3
    says = Sentence("is true, and {channel} moves no real money", channel="sandbox")
    wrong = Sentence("{key} {says}", key="live", says=says)
    assert await open_account_case(resources.db, "main", CaseReason.WRONG_WORLD, detail=wrong)
    stated = Sentence("{name}: {stated} stated, {read} read", name="rows", stated=2, read=1)
    reason = Sentence("the statement states other totals than its rows have ({stated})", stated=stated)
    await fail(resources.db, run, reason, 60.0)
    return run.id


@pytest.fixture
async def filled(
    client: Client, buyer: Client, channel: Channel, account: str, resources: Resources
) -> dict[str, list[Any]]:
    """Values of the parameters of pages, by the part of the address before them."""
    order = (await client.post("/v1/orders", terms(account=account))).json
    order_no, number = order["order_no"], order["payments"][0]["out_trade_no"]
    body = paid_body(order["payments"][0])
    await send(buyer, body, signed(body, secret=STRANGER))
    await eventually(partial(is_written, resources))
    await channel.pay(number)
    assert (await send(buyer, body, signed(body))).status == 200
    full = (await client.post("/v1/orders", terms(account=account, order_no="B-1"))).json
    await fill_with(resources, full["order_no"], "x")
    run = await open_every_kind(resources, order_no, number)
    await raise_alerts(resources)
    await upload(resources, account, YESTERDAY, b"<html>", by="operator")
    await request_fetched(resources, account, YESTERDAY, by="operator", dry_run=True)
    assert await read_requested(resources)
    callbacks = [row["id"] for row in (await client.get("/v1/callbacks")).json["callbacks"]]
    cases = [str(row["id"]) for row in await resources.db.fetch("SELECT id FROM cases ORDER BY id")]
    notifications = [row["id"] for row in await resources.db.fetch("SELECT id FROM notifications ORDER BY id")]
    return {
        "orders": [order_no, full["order_no"]],
        "refund": [number],
        "cases": cases,
        "notifications": notifications,
        "callbacks": callbacks,
        "days": [account],
        "{account}": [YESTERDAY.isoformat(), (YESTERDAY - timedelta(days=3)).isoformat()],
        "reconciliation": [run],
        "accounts": [account],
        "operators": ["viewer"],
    }


def addresses_of(pattern: str, values: dict[str, list[Any]]) -> Iterator[str]:
    """The page with each value of its last parameter."""
    before, _, after = pattern.partition("{")
    if not after:
        yield f"{pattern}?endpoint={HOOK}" if pattern.endswith("/show") else pattern
        return
    name, _, rest = after.partition("}")
    part = before.rstrip("/").rpartition("/")[2]
    for value in values.get("{account}" if name == "day" else part, []):
        yield from addresses_of(f"{before}{value}{rest}", values)


async def test_no_page_has_an_english_sentence(
    signed_in: SignedIn, resources: Resources, filled: dict[str, list[Any]]
) -> None:
    await signed_in(Role.VIEWER)
    admin = await signed_in(Role.ADMIN)
    found, opened = {}, set()
    for row in ROWS:
        if row.route.method != "GET" or row.route.pattern in WITHOUT_PAGE:
            continue
        for address in addresses_of(row.route.pattern, filled):
            response = await admin.get(address, **CHINESE)
            if response.headers.get("content-type", "").startswith("text/html"):
                opened.add(row.route.pattern)
                if english := english_in(response.body.decode()):
                    found[address] = english
    assert found == {}
    assert len(opened) > 30


async def test_stored_sentences_are_in_the_readers_language(
    signed_in: SignedIn, resources: Resources, filled: dict[str, list[Any]]
) -> None:
    viewer = await signed_in(Role.VIEWER)
    for path, sentences in (
        ("/ops/cases", ("对账单为 ¥0.01，此处为 ¥88.88", "live 为 true，而 sandbox 不涉及真实资金")),
        (
            f"/ops/reconciliation/{filled['reconciliation'][0]}",
            ("未支付订单：A-1、A-2", "rows 写明 2，读出 1"),
        ),
        (f"/ops/orders/{filled['orders'][0]}", ("对账：金额不同（对账单为 ¥0.01，此处为 ¥88.88）",)),
        (
            "/ops/alerts",
            ALERTED,
        ),
        (f"/ops/days/main/{YESTERDAY}/requests", ("像是网页，应为沙箱的 UTF-8 CSV",)),
    ):
        page = text_of((await viewer.get(path, **CHINESE)).body.decode())
        assert [sentence for sentence in sentences if sentence not in page] == [], path
        english = text_of((await viewer.get(path)).body.decode())
        assert [sentence for sentence in sentences if sentence in english] == [], path


@pytest.mark.parametrize(
    ("method", "path", "form", "sentence"),
    [
        ("GET", "/ops/cases/999", {}, "没有事项 999"),
        ("GET", "/ops/orders/none-1", {}, "没有这个订单"),
        ("GET", "/ops/cases?age=x", {}, "字段 age 的值不能使用"),
        ("GET", "/ops/audit?by=%ff", {}, "无法读取地址中的查询参数"),
        ("POST", "/ops/operators/nobody/disable", {"reason": "x"}, "没有名为 nobody 的运维人员"),
        ("POST", "/ops/operators/nobody/disable", {"reason": ""}, "原因：请简短说明，之后他人会看到"),
        ("POST", "/ops/operators/nobody/disable", {"reason": "x" * 501}, "原因：最多 500 个字符"),
        ("POST", "/ops/operators", {"reason": "x", "name": "Ä", "role": "viewer"}, "名称以小写字母开头"),
    ],
)
async def test_a_fault_is_told_in_the_readers_language(
    signed_in: SignedIn, method: str, path: str, form: dict[str, str], sentence: str
) -> None:
    admin = await signed_in(Role.ADMIN)
    response = await (admin.get(path, **CHINESE) if method == "GET" else admin.post(path, form, **CHINESE))
    page = response.body.decode()
    assert response.status >= 400
    assert sentence in text_of(page)
    assert english_in(page) == []


async def test_a_role_that_is_too_low_is_told_before_the_session_is_read(signed_in: SignedIn) -> None:
    viewer: ConsoleClient = await signed_in(Role.VIEWER)
    page = text_of((await viewer.get("/ops/operators", **CHINESE)).body.decode())
    assert "需要“管理”角色，而 viewer 的角色是“只读”" in page


async def test_notes_errors_and_codes_of_an_order_are_in_chinese(
    signed_in: SignedIn, resources: Resources, filled: dict[str, list[Any]]
) -> None:
    """A code has its meaning where that is documented, and stands beside it."""
    db, order_no = resources.db, filled["orders"][1]
    await db.execute(
        "UPDATE refunds SET status = 'processing', settled_at = NULL, last_error = $2 WHERE order_no = $1",
        order_no,
        "refused: ACQ.SELLER_BALANCE_NOT_ENOUGH",
    )
    insert = "INSERT INTO order_events (order_no, version, kind, by, note) VALUES ($1, $2, $3, 'operator', $4)"
    notes = {"refund_requested": "r-9 by anna, approved by ben", "create_refused": "NOT_ENOUGH", "erased": "by anna"}
    for version, (kind, note) in enumerate(notes.items(), 90):
        await db.execute(insert, order_no, version, kind, note)
    page = text_of((await (await signed_in(Role.OPERATOR)).get(f"/ops/orders/{order_no}", **CHINESE)).body.decode())
    for words in (
        "渠道拒绝：卖家余额不足（ACQ.SELLER_BALANCE_NOT_ENOUGH）",
        "已决定退款：r-9，操作人：anna，复核人：ben",
        "拒绝创建支付单：余额不足（NOT_ENOUGH）",
    ):
        assert words in page, words
    english = text_of((await (await signed_in(Role.OPERATOR)).get(f"/ops/orders/{order_no}")).body.decode())
    assert "refused: ACQ.SELLER_BALANCE_NOT_ENOUGH" in english


def test_every_field_of_evidence_has_a_name() -> None:
    fields = {field.encode_name for kind in get_args(Evidence) for field in structs.fields(kind)} | {"kind"}
    for lang, language in LANGUAGES.items():
        assert [field for field in sorted(fields) if f"evidence.{field}" not in language.texts] == [], lang


async def test_subjects_of_alerts_are_words(signed_in: SignedIn, filled: dict[str, list[Any]]) -> None:
    page = (await (await signed_in(Role.VIEWER)).get("/ops/alerts", **CHINESE)).body.decode()
    links = set(re.findall(r'<a href="/ops/[^"]+"><bdi>([^<]+)</bdi></a>', page))
    assert filled
    assert links >= {"事项 1", "有争议", "main，查单"}
    assert not [each for each in links if "disputed" in each or "query" in each]


async def test_a_text_of_an_earlier_release_is_shown_as_english(
    signed_in: SignedIn, resources: Resources, account: str
) -> None:
    await open_account_case(resources.db, account, CaseReason.WRONG_WORLD, detail="live is <b>true</b>")
    viewer = await signed_in(Role.VIEWER)
    assert (
        '<bdi lang="en">live is &lt;b&gt;true&lt;/b&gt;</bdi>'
        in (await viewer.get("/ops/cases", **CHINESE)).body.decode()
    )
    assert "<bdi>live is &lt;b&gt;true&lt;/b&gt;</bdi>" in (await viewer.get("/ops/cases")).body.decode()


async def test_a_viewer_sees_no_payer_in_a_sentence(signed_in: SignedIn, resources: Resources, account: str) -> None:
    detail = Sentence(
        "{key} {says}", key="of buyer@shop.test", says=Sentence("evidence of {account}", account="a@b.test")
    )
    await open_account_case(resources.db, account, CaseReason.WRONG_WORLD, detail=detail)
    for role, is_seen in ((Role.VIEWER, False), (Role.OPERATOR, True)):
        page = (await (await signed_in(role)).get("/ops/cases", **CHINESE)).body.decode()
        assert "凭据属于" in page
        assert [name in page for name in ("buyer@shop.test", "a@b.test")] == [is_seen] * 2
