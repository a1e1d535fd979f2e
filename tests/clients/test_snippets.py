"""Every snippet of docs/notifications.md, unchanged and in its own runtime: all of them decide the same cases alike."""

import asyncio
import base64
import hmac
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from core.notice import NotificationType
from core.order import OrderStatus
from core.settings import Settings
from demo.stack import Stack
from flows.notify import Notifier
from nodrop_client import AsyncClient, NewOrder
from storage.postgres.notifications import Outgoing
from tests.clients.messages import made, signed
from tests.clients.programs import RECIPES, Program, Recipe, python_with_frameworks, skip_without_runtime
from tests.servers import eventually

OLD, NEW, OTHER = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2, 3))
SECRETS = f"{OLD}=,{NEW.rstrip('=')}"
"""As while a secret is changed. The padding of one is too long, and that of the other is missing."""

HAVE_FRAMEWORKS = pytest.mark.network
LANGUAGES = [pytest.param(name, marks=[HAVE_FRAMEWORKS] if recipe.installs else []) for name, recipe in RECIPES.items()]
WITH_DATABASE = [
    pytest.param(name, marks=[HAVE_FRAMEWORKS] if recipe.installs else [])
    for name, recipe in RECIPES.items()
    if recipe.has_database
]

pytestmark = [
    *(pytest.mark.servers, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")),
    pytest.mark.timeout(1800),  # some compile, some install a framework
]


class Programs:
    """Programs by language, each built once and running until the end."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._python: Path | None = None
        self._running: dict[str, Program] = {}

    async def get(self, name: str) -> Program:
        if name not in self._running:
            recipe = RECIPES[name]
            skip_without_runtime(recipe)
            home = self._home / name
            home.mkdir()
            program = Program(recipe, home, await asyncio.to_thread(self._interpreter, recipe))
            await asyncio.to_thread(program.build)
            await program.start(SECRETS)
            self._running[name] = program
        return self._running[name]

    @asynccontextmanager
    async def another(self, name: str, secrets: str) -> AsyncIterator[Program]:
        """Another process of this language, with these secrets."""
        program = (await self.get(name)).another()
        await program.start(secrets)
        try:
            yield program
        finally:
            program.stop()

    def stop(self) -> None:
        for program in self._running.values():
            program.stop()

    def _interpreter(self, recipe: Recipe) -> Path:
        if recipe.installs != "pip":
            return Path(sys.executable)
        if self._python is None:
            self._python = python_with_frameworks(self._home)
        return self._python


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def programs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Programs]:
    programs = Programs(tmp_path_factory.mktemp("snippets"))
    yield programs
    programs.stop()


class Delivery(NamedTuple):
    order_no: str
    headers: dict[str, str]
    body: bytes

    async def post(self, program: Program) -> int:
        """Return the status of the response."""
        headers = {"content-type": "application/json"} | self.headers
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            return (await http.post(program.url, content=self.body, headers=raw)).status_code


def delivery(
    *secrets: str,
    at: int = 0,
    order_no: str = "",
    version: int = 3,
    status: OrderStatus = OrderStatus.PAID,
    type_: NotificationType = "order.paid",
) -> Delivery:
    """A delivery of now, or `at` seconds from now, signed with these secrets."""
    order_no = order_no or f"N-{uuid4().hex[:12]}"
    notice = made(version, status, type_, order_no=order_no)
    return Delivery(order_no, signed(notice.id, notice.body, *secrets, at=round(time.time()) + at), notice.body)


def with_headers(one: Delivery, **changes: str | None) -> Delivery:
    """The delivery with other values of `webhook-…`; None: without it."""
    headers = one.headers | {f"webhook-{name}": text for name, text in changes.items() if text is not None}
    gone = {f"webhook-{name}" for name, text in changes.items() if text is None}
    return one._replace(headers={name: text for name, text in headers.items() if name not in gone})


def one_byte_changed() -> Delivery:
    one = delivery(OLD)
    body = one.body.replace(b"8888", b"8889", 1)
    assert len(body) == len(one.body)
    assert body != one.body
    return one._replace(body=body)


def signed_by(key: bytes) -> Delivery:
    """Signed with a key that no library would take for a secret."""
    one = delivery(OLD)
    signed_text = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    signature = "v1," + base64.b64encode(hmac.digest(key, signed_text, "sha256")).decode()
    return with_headers(one, signature=signature)


def with_prefix(one: Delivery, prefix: str) -> Delivery:
    """Another signature before its own."""
    return with_headers(one, signature=prefix + one.headers["webhook-signature"])


def other_version(one: Delivery) -> Delivery:
    return with_headers(one, signature=one.headers["webhook-signature"].replace("v1,", "v2,"))


GENUINE: dict[str, Callable[[], Delivery]] = {
    "of the older secret": lambda: delivery(OLD),
    "of the newer secret": lambda: delivery(NEW),
    "of both": lambda: delivery(OLD, NEW),
    "of an unknown one and the newer": lambda: delivery(OTHER, NEW),
    "beside another version": lambda: with_headers(
        one := delivery(OLD), signature=f"v2,x {one.headers['webhook-signature']}"
    ),
    "four minutes old": lambda: delivery(OLD, at=-240),
    "of a clock four minutes ahead": lambda: delivery(OLD, at=240),
}
REFUSED: dict[str, Callable[[], Delivery]] = {
    "forged": lambda: delivery(OTHER),
    "forged with an empty key": lambda: signed_by(b""),
    "body changed by one byte": one_byte_changed,
    "body with a space more": lambda: (one := delivery(OLD))._replace(body=one.body + b" "),
    "no body": lambda: delivery(OLD)._replace(body=b""),
    "stale": lambda: delivery(OLD, at=-400),
    "of the future": lambda: delivery(OLD, at=1000),
    "timestamp changed": lambda: with_headers(delivery(OLD), timestamp=str(round(time.time()) + 1)),
    "timestamp no number": lambda: with_headers(delivery(OLD), timestamp="now"),
    "timestamp very large": lambda: with_headers(delivery(OLD), timestamp="9" * 400),
    "timestamp empty": lambda: with_headers(delivery(OLD), timestamp=""),
    "timestamp missing": lambda: with_headers(delivery(OLD), timestamp=None),
    "id changed": lambda: with_headers(delivery(OLD), id="msg_other"),
    "id missing": lambda: with_headers(delivery(OLD), id=None),
    "signature of another version": lambda: other_version(delivery(OLD)),
    "signature cut": lambda: with_headers(one := delivery(OLD), signature=one.headers["webhook-signature"][:-1]),
    "signature empty": lambda: with_headers(delivery(OLD), signature=""),
    "signature without a value": lambda: with_headers(delivery(OLD), signature="v1,"),
    "signature no text": lambda: with_headers(delivery(OLD), signature="v1,é"),
    "no header at all": lambda: delivery(OLD)._replace(headers={}),
    "signature missing": lambda: with_headers(delivery(OLD), signature=None),
}


@pytest.mark.parametrize("case", GENUINE)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_genuine_is_taken(programs: Programs, language: str, case: str) -> None:
    program, one = await programs.get(language), GENUINE[case]()
    program.expect(one.order_no)
    assert await one.post(program) == 204
    assert program.effects(one.order_no) == ["3"]


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_not_genuine_has_no_effect(programs: Programs, language: str, case: str) -> None:
    program, one = await programs.get(language), REFUSED[case]()
    program.expect(one.order_no)
    assert await one.post(program) == 400
    assert program.effects(one.order_no) == []


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_is_delivered_twice_is_acknowledged_twice_and_has_one_effect(
    programs: Programs, language: str
) -> None:
    """The second delivery has another time and another signature, as the worker makes it."""
    program, one = await programs.get(language), delivery(OLD)
    program.expect(one.order_no)
    again = delivery(NEW, order_no=one.order_no, at=1)
    assert [await each.post(program) for each in (one, again, one)] == [204, 204, 204]
    assert program.effects(one.order_no) == ["3"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_effect_that_fails_is_not_acknowledged(programs: Programs, language: str) -> None:
    program, one = await programs.get(language), delivery(OLD)
    program.expect(one.order_no)
    program.break_down()
    assert await one.post(program) == 500
    program.recover()
    assert program.effects(one.order_no) == []
    assert await one.post(program) == 204
    assert program.effects(one.order_no) == ["3"]


@pytest.mark.parametrize("key", [b"", bytes(23)], ids=["empty", "short"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_without_a_secret_nothing_is_taken(programs: Programs, language: str, key: bytes) -> None:
    """A setting that is missing or cut must not be a key that anybody may guess."""
    secret = f"whsec_{base64.b64encode(key).decode()}" if key else ""
    async with programs.another(language, secret) as program:
        assert await signed_by(key).post(program) == 500


@pytest.mark.parametrize("language", WITH_DATABASE)
async def test_an_older_version_changes_nothing(programs: Programs, language: str) -> None:
    """The newer one has made the work; that it was not `order.paid` is for a person to look at."""
    program = await programs.get(language)
    order_no = f"N-{uuid4().hex[:12]}"
    program.expect(order_no)
    newer = delivery(OLD, order_no=order_no, version=4, type_="order.disputed")
    older = delivery(OLD, order_no=order_no, version=3)
    assert [await one.post(program) for one in (newer, older)] == [204, 204]
    assert (program.effects(order_no), program.work(order_no)) == (["4"], ["check"])


@pytest.mark.parametrize("language", WITH_DATABASE)
async def test_only_a_paid_order_makes_work(programs: Programs, language: str) -> None:
    program = await programs.get(language)
    closed = delivery(OLD, status=OrderStatus.CLOSED, type_="order.closed")
    program.expect(closed.order_no)
    assert await closed.post(program) == 204
    assert (program.effects(closed.order_no), program.work(closed.order_no)) == (["3"], [])
    paid = delivery(OLD, order_no=closed.order_no, version=4)
    assert await paid.post(program) == 204
    assert program.work(closed.order_no) == ["ship"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_worker_s_own_signatures_are_understood_while_a_secret_is_changed(
    programs: Programs, language: str
) -> None:
    program = await programs.get(language)
    order_no = f"N-{uuid4().hex[:12]}"
    program.expect(order_no)
    notice = made(order_no=order_no)
    outgoing = Outgoing(
        id=notice.id,
        order_no=order_no,
        version=3,
        type=notice.type,
        url=program.url,
        body=notice.body,
        attempt=1,
        arm_no=1,
    )
    settings = Settings(notify_secrets=f"{OTHER},{NEW}", notify_allow_nets="127.0.0.0/8", notify_timeout_s=120)
    async with Notifier(settings) as notifier:
        delivered = await notifier.deliver(outgoing)
    assert (delivered.ok, program.effects(order_no)) == (True, ["3"])


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_running_worker_is_understood(programs: Programs, stack: Stack, language: str) -> None:
    """A real delivery of a real payment. The worker signs with another secret than the other tests."""
    order_no = f"N-{uuid4().hex[:12]}"
    async with (
        programs.another(language, f"{OLD},{stack.notify_secret}") as program,
        AsyncClient(stack.api_url, stack.api_key) as client,
    ):
        program.expect(order_no)
        terms = {"order_no": order_no, "amount": 8888, "currency": "CNY", "subject": "Tea", "account": "sandbox"}
        placed = await client.place(NewOrder(**terms, notify_url=program.url))  # type: ignore[arg-type]
        await stack.control("POST", "channel", f"/control/payments/{placed.payments[0].out_trade_no}/pay")
        assert len(await eventually(lambda: program.effects(order_no))) == 1
        await eventually(lambda: _is_acknowledged(stack, order_no))


async def _is_acknowledged(stack: Stack, order_no: str) -> bool:
    db = await stack.open_database()
    try:
        sql = "SELECT count(*) FROM notifications WHERE order_no = $1 AND delivered_at IS NOT NULL"
        return bool(await db.fetchval(sql, order_no))
    finally:
        await db.close()
