"""Log lines hold allowed fields and nothing else, whatever is passed (I10)."""

import ast
import io
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import structlog

from core.order import CaseReason, OrderStatus, PaymentKey
from runtime.logs import FIELDS, REQUEST_ID, configure_logs
from tests.servers import ROOT

CANARY = "canary-4242424242424242"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def out() -> Iterator[io.BytesIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.BytesIO()
    configure_logs("info", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = before


def lines(out: io.BytesIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_its_time_in_utc_first(out: io.BytesIO) -> None:
    structlog.get_logger().info("order_paid", order_no="A-1", attempt=2, status=OrderStatus.PAID)
    [line] = lines(out)
    assert list(line)[:3] == ["at", "level", "event"]
    assert datetime.fromisoformat(line.pop("at")).utcoffset() == datetime.now(UTC).utcoffset()
    assert line == {"level": "info", "event": "order_paid", "order_no": "A-1", "attempt": 2, "status": "paid"}


@pytest.mark.parametrize(
    "name",
    ["body", "headers", "authorization", "api_key", "key", "token", "page_token", "signature", "credentials", "secret",
     "subject", "url", "notify_url", "email", "openid", "payer", "metadata", "exc_info_text", "message", "args"],
)  # fmt: skip
def test_a_field_that_is_not_allowed_is_dropped(out: io.BytesIO, name: str) -> None:
    assert name not in FIELDS
    structlog.get_logger().info("something_happened", **{name: CANARY})
    assert CANARY not in out.getvalue().decode()


def test_in_debug_a_line_names_what_it_dropped_without_values(out: io.BytesIO) -> None:
    configure_logs("debug", out)
    structlog.get_logger().debug("something_happened", secret=CANARY, order_no="A-1")
    [line] = lines(out)
    assert (line["dropped"], line["order_no"]) == (["secret"], "A-1")
    assert CANARY not in out.getvalue().decode()


def test_an_exception_is_its_types_and_places_and_never_its_text(out: io.BytesIO) -> None:
    def inner() -> None:
        raise ValueError(CANARY)

    try:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError(CANARY) from error
    except RuntimeError:
        structlog.get_logger().exception("job_broke")
    [line] = lines(out)
    assert line["error"] == "RuntimeError < ValueError"
    assert line["where"].startswith("tests/runtime/test_logs.py:")
    assert CANARY not in out.getvalue().decode()


def test_an_object_is_its_type_because_its_repr_may_show_anything(out: io.BytesIO) -> None:
    structlog.get_logger().info("something_happened", reason={"key": CANARY}, state=PaymentKey("main", CANARY))
    [line] = lines(out)
    assert (line["reason"], line["state"]) == ("<dict>", "<PaymentKey>")


def test_a_list_of_our_own_words_is_kept(out: io.BytesIO) -> None:
    structlog.get_logger().info("order_paid", cases=[CaseReason.PAID_LATE, CaseReason.AMOUNT_MISMATCH])
    assert lines(out)[0]["cases"] == "paid_late,amount_mismatch"


def test_an_event_that_is_a_sentence_with_values_loses_them(out: io.BytesIO) -> None:
    structlog.get_logger().info(f"could not open {CANARY}")
    assert lines(out)[0]["event"] == "event_unnamed"
    assert CANARY not in out.getvalue().decode()


def test_long_texts_are_cut_and_no_text_breaks_a_line(out: io.BytesIO) -> None:
    log = structlog.get_logger()
    log.info("something_happened", reason="x" * 10_000)
    log.info("something_happened", reason='a\r\n{"event":"forged"}')
    log.info("something_happened", reason="\ud800\x00")
    long, injected, broken = lines(out)
    assert len(long["reason"]) < 500
    assert injected["event"] == "something_happened"
    assert broken["reason"]


def test_what_a_library_logs_is_a_place_and_a_level(out: io.BytesIO) -> None:
    """Arq logs job arguments, drivers log addresses with passwords, asyncio logs reprs."""
    failure = ConnectionError(CANARY)
    logging.getLogger("arq.worker").error("failed with %s", CANARY, exc_info=failure)
    logging.getLogger("asyncpg").warning(f"postgres://user:{CANARY}@host")  # noqa: G004 - as libraries do
    logging.getLogger("httpx").info("GET %s", CANARY)
    failed, warned = lines(out)
    assert (failed["event"], failed["logger"], failed["error"]) == ("library_logged", "arq.worker", "ConnectionError")
    assert warned["where"].startswith("test_logs:")
    assert CANARY not in out.getvalue().decode()


def test_context_of_a_request_is_in_every_line_within(out: io.BytesIO) -> None:
    token = REQUEST_ID.set("0123")
    structlog.get_logger().warning("channel_unavailable", account="main", secret=CANARY)
    REQUEST_ID.reset(token)
    [line] = lines(out)
    assert (line["request_id"], line["account"]) == ("0123", "main")
    assert CANARY not in out.getvalue().decode()


def test_the_level_is_kept(out: io.BytesIO) -> None:
    structlog.get_logger().debug("something_happened")
    assert out.getvalue() == b""


def test_every_field_that_our_code_logs_is_allowed() -> None:
    """A field that is dropped in silence is missed on the night it was wanted: add it to `FIELDS`, or do not log it."""
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    unknown = set()
    for package in ("api", "channels", "flows", "storage", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels:
                    names = {keyword.arg for keyword in node.keywords if keyword.arg} - FIELDS - {"exc_info"}
                    unknown |= {f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in names}
    assert unknown == set()
