"""`nodrop callbacks`: what came, in which state, and what it proves."""

import base64

import pytest

from core.errors import CallbackForged, CallbackRejected
from core.order import OrderState
from flows.callback import receive_callback
from flows.refusals import write_refusals
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from tests.api.test_callbacks import paid_body, signed
from tests.cli.conftest import MERCHANT_ID, Channel, Place
from tests.cli.nodrop import Nodrop

NOBODY = "6f1c2d9e-0d4b-4a53-9a53-0c7a2f5d1e11"


class Callbacks:
    """Sends callbacks about one order, genuine or not, and lists them."""

    def __init__(self, nodrop: Nodrop, resources: Resources, state: OrderState, secret: str) -> None:
        self.nodrop = nodrop
        self.resources = resources
        self.state = state
        self.secret = secret
        self.body = paid_body(
            {"out_trade_no": state.payments[0].out_trade_no, "amount": 8888, "currency": "CNY"},
            merchant_id=MERCHANT_ID,
        )

    async def send(self, *, secret: str = "", at: float | None = None) -> None:
        headers = signed(self.body, at=at, secret=secret or self.secret)
        try:
            await receive_callback(self.resources, "main", headers, self.body)
        except CallbackRejected as error:
            self.resources.refusals.note("main", error, headers, self.body, "203.0.113.9")
            await write_refusals(self.resources)

    async def list(self, *options: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = (await self.nodrop("callbacks", "list", "--json", *options)).json
        return rows

    async def id(self, *options: str) -> str:
        [row] = await self.list(*options)
        return str(row["id"])


@pytest.fixture
async def callbacks(nodrop: Nodrop, resources: Resources, place: Place, channel: Channel) -> Callbacks:
    return Callbacks(nodrop, resources, await place("A-1"), channel.secret)


STRANGER = "a stranger's secret, as long as it is"


async def test_stored_and_refused_callbacks_are_listed_newest_first(callbacks: Callbacks) -> None:
    await callbacks.send(secret=STRANGER)
    await callbacks.send()
    assert [row["verdict"] for row in await callbacks.list()] == ["genuine", "forged"]
    assert [row["verdict"] for row in await callbacks.list("--order", "A-1")] == ["genuine", "forged"]
    assert [row["verdict"] for row in await callbacks.list("--order", "A-1", "--state", "refused")] == ["forged"]
    assert [row["verdict"] for row in await callbacks.list("--state", "refused", "--account", "main")] == ["forged"]
    assert await callbacks.list("--since", "2099-01-01") == []
    assert len(await callbacks.list("--since", "1h")) == 2
    assert await callbacks.list("--account", "other") == []
    assert await callbacks.list("--order", "A-1", "--account", "other") == []
    table = (await callbacks.nodrop("callbacks", "list")).out
    assert "forged: signature" in table
    assert "A-1" in table
    ran = await callbacks.nodrop("callbacks", "list", "--limit", "1")
    assert "there are more than these 1" in ran.err
    ran = await callbacks.nodrop("callbacks", "list", "--order", "A-1", "--limit", "1")
    assert "there are more than these 1" in ran.err
    assert (await callbacks.nodrop("callbacks", "list", "--state", "dead")).out == "no such callbacks\n"


async def test_a_callback_is_shown_without_its_body(callbacks: Callbacks) -> None:
    await callbacks.send()
    ran = await callbacks.nodrop("callbacks", "show", await callbacks.id())
    assert ran.code == 0
    assert "genuine" in ran.out
    assert "sandbox-signature" not in ran.out
    assert await list_acts(callbacks.resources.db, limit=10) == []


async def test_a_refused_one_is_shown_as_a_claim(callbacks: Callbacks) -> None:
    await callbacks.send(secret=STRANGER)
    ran = await callbacks.nodrop("callbacks", "show", await callbacks.id())
    assert "A-1 (claimed, not proved)" in ran.out
    assert "203.0.113.0/24" in ran.out


async def test_a_raw_body_is_opened_with_the_master_key_and_written_into_the_audit(callbacks: Callbacks) -> None:
    await callbacks.send()
    callback_id = await callbacks.id()
    ran = await callbacks.nodrop("callbacks", "show", callback_id, "--raw")
    assert callbacks.body.decode() in ran.out
    assert "sandbox-signature: t=" in ran.out
    raw = (await callbacks.nodrop("callbacks", "show", callback_id, "--raw", "--json")).json["raw"]
    assert (raw["body"], raw["is_whole"]) == (callbacks.body.decode(), True)
    acts = await list_acts(callbacks.resources.db, limit=10)
    written: tuple[str, str, dict[str, str]] = ("callback.raw", callback_id, {})
    assert [(act.action, act.subject, act.detail) for act in acts] == [written, written]
    without = await callbacks.nodrop("callbacks", "show", callback_id, "--raw", env={"NODROP_MASTER_KEYS": ""})
    assert (without.code, without.line.startswith("NODROP_MASTER_KEYS")) == (2, True)


async def test_the_first_bytes_of_a_refused_one_are_shown_in_base64_if_they_are_no_text(callbacks: Callbacks) -> None:
    error = CallbackForged("signature")
    callbacks.resources.refusals.note("main", error, {"sandbox-signature": "\x1b[31m"}, b"\xff\x00" * 9000, "")
    await write_refusals(callbacks.resources)
    ran = await callbacks.nodrop("callbacks", "show", await callbacks.id(), "--raw")
    assert "body (its first bytes)" in ran.out
    assert base64.b64encode(b"\xff\x00" * 4096).decode() in ran.out
    assert "\x1b" not in ran.out
    await callbacks.resources.db.execute("UPDATE refused_callbacks SET body = NULL")
    ran = await callbacks.nodrop("callbacks", "show", await callbacks.id(), "--raw", "--json")
    assert (ran.json["raw"], "not kept" in ran.err) == (None, True)


async def test_a_callback_is_explained_by_its_id(callbacks: Callbacks) -> None:
    await callbacks.send()
    ran = await callbacks.nodrop("callbacks", "explain", await callbacks.id())
    assert (ran.code, ran.out.startswith("paid: paid")) == (0, True)
    assert "88.88 CNY" in ran.out
    assert ": good" in ran.out
    assert callbacks.secret not in ran.out


@pytest.mark.parametrize(("changes", "reason"), [({"secret": STRANGER}, "forged"), ({"at": 1e9}, "stale")])
async def test_a_refused_one_is_explained_with_its_exit_code(
    callbacks: Callbacks, changes: dict[str, object], reason: str
) -> None:
    await callbacks.send(**changes)  # type: ignore[arg-type]
    ran = await callbacks.nodrop("callbacks", "explain", await callbacks.id(), "--json")
    assert (ran.code, ran.json["verdict"], ran.json["reason"]) == (3, "rejected", reason)
    [act] = await list_acts(callbacks.resources.db, limit=10)
    assert act.action == "callback.explain"


@pytest.mark.parametrize("command", ["show", "explain"])
@pytest.mark.parametrize("callback_id", ["7", NOBODY])
async def test_what_is_not_there_is_said(nodrop: Nodrop, resources: Resources, command: str, callback_id: str) -> None:
    ran = await nodrop("callbacks", command, callback_id)
    assert (ran.code, ran.line.startswith(f"there is no callback {callback_id}")) == (1, True)
