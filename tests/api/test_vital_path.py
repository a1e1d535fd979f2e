"""Length of the vital path: the files that one callback and one scheduled query pass, and how often they climb.

A file counts when one of its functions starts. The walk is the order in which files are entered by a call (core apart,
whose functions are pure); a climb is a step of the walk to a higher layer than that of the file before.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx
import pytest

from core.decision import Outcome
from core.evidence import Source
from core.order import PaymentKey
from demo.service import NO_TLS
from flows.query import query_leased
from runtime.resources import Resources
from storage.postgres import pending
from tests.api.conftest import Channel, terms
from tests.api.driver import Client
from tests.api.test_callbacks import paid_body, signed
from tests.servers import ROOT

LAYERS = {"core": 0, "channels": 1, "storage": 1, "runtime": 2, "flows": 3, "api": 4, "worker": 4}
COMMITTED = "_after_commit"
"""The function with which the commit has happened: what follows is counted for the walk alone."""

FLOW_FILES_MAX = 5
FILES_MAX = 26
CLIMBS_MAX = 4


BESIDE = {
    "runtime/loop.py", "core/clocks.py", "flows/take_over.py", "storage/postgres/processes.py",
    "flows/refusals.py", "runtime/refusals.py",
}  # fmt: skip
"""The beat of the process and the writing of what was refused, which may come at any moment and have no part in the
callback."""


class Trace:
    """Files that ran until the commit, and every step of the walk."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.walk: list[str] = []
        self._frames: dict[int, FrameType] = {}
        self._is_committed = False

    def on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        """A profile function. A coroutine that is resumed is called again: only its first start counts."""
        if event != "call" or self._frames.get(id(frame)) is frame:
            return
        name = _file(frame)
        if name is None:
            return
        self._frames[id(frame)] = frame
        self._is_committed = self._is_committed or frame.f_code.co_name == COMMITTED
        if not self._is_committed:
            self.files.setdefault(name)
        if _layer(name) and (not self.walk or self.walk[-1] != name):
            self.walk.append(name)

    @property
    def flow_files(self) -> list[str]:
        return [name for name in self.files if name.startswith("flows/")]

    @property
    def climbs(self) -> list[str]:
        steps = zip(self.walk, self.walk[1:], strict=False)
        return [f"{before} → {after}" for before, after in steps if _layer(after) > _layer(before)]


def _file(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT).as_posix()
    return name if name.partition("/")[0] in LAYERS and name not in BESIDE else None


def _layer(name: str) -> int:
    return LAYERS[name.partition("/")[0]]


@contextmanager
def traced() -> Iterator[Trace]:
    trace = Trace()
    sys.setprofile(trace.on_event)
    try:
        yield trace
    finally:
        sys.setprofile(None)


@pytest.fixture(autouse=True)
def quiet_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the clock, every second beside the requests, is on no path."""
    monkeypatch.setattr("api.application.CHECK_S", 3600.0)


async def test_one_callback_passes_few_files(
    served: str, client: Client, account: str, channel: Channel, resources: Resources
) -> None:
    """From the socket to the commit of a payment that the channel confirms."""
    payment = (await client.post("/v1/orders", terms(account=account))).json["payments"][0]
    await channel.pay(payment["out_trade_no"])
    body = paid_body(payment)
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS, timeout=60) as http:
        await http.get(f"{served}/healthz")
        with traced() as trace:
            response = await http.post(f"{served}/callbacks/{account}", content=body, headers=signed(body))
    assert (response.status_code, response.content) == (200, b"ok")
    assert await resources.db.fetchval("SELECT status FROM orders") == "paid"
    assert len(trace.flow_files) <= FLOW_FILES_MAX, trace.flow_files
    assert len(trace.files) <= FILES_MAX, "\n".join(trace.files)


async def test_one_scheduled_query_passes_few_files_and_seldom_climbs(
    client: Client, account: str, channel: Channel, resources: Resources
) -> None:
    """The way of a leased row: from its lease to the commit of a payment, and what follows the commit."""
    payment = (await client.post("/v1/orders", terms(account=account))).json["payments"][0]
    await channel.pay(payment["out_trade_no"])
    leased = await pending.claim(resources.db, PaymentKey(account, payment["out_trade_no"]), 20.0)
    assert leased is not None
    client.app._lag.end()  # beside the way, ten times a second
    with traced() as trace:
        outcome = await query_leased(resources, leased, by=Source.QUERY)
    assert outcome is Outcome.PAID
    assert len(trace.flow_files) <= FLOW_FILES_MAX, trace.flow_files
    assert len(trace.climbs) <= CLIMBS_MAX, "\n".join(trace.climbs)
