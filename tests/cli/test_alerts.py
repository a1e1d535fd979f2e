"""`nodrop alerts`: the list, and a test that a worker sends."""

import asyncio
from contextlib import suppress

import pytest

from flows.alert_messages import AlertSender, send_due
from runtime.resources import Resources
from tests.channels.wire import WireResponse, always, http_bytes, serving
from tests.cli.nodrop import Nodrop

_RAISE = """
INSERT INTO alerts (id, key, rule, subject, text, looks, raised_at, cleared_at)
SELECT 'alr_0' || n, 'case:' || n, 'case', n::text, 'case ' || n || ' is open', 0, now() - make_interval(mins => n),
       CASE WHEN n > 2 THEN now() END
  FROM generate_series(1, 3) n"""
OK = http_bytes(WireResponse(204, {}, b""))


@pytest.fixture
async def raised(resources: Resources) -> None:
    """Three alerts, the oldest of them cleared."""
    await resources.db.execute(_RAISE)


async def test_open_alerts_are_listed_newest_first(nodrop: Nodrop, raised: None) -> None:
    assert [row["subject"] for row in (await nodrop("alerts", "list", "--json")).json] == ["1", "2"]
    assert [row["subject"] for row in (await nodrop("alerts", "list", "--all", "--json")).json] == ["1", "2", "3"]
    ran = await nodrop("alerts", "list", "--limit", "1")
    assert (ran.code, "case 1 is open" in ran.out, "case 2" in ran.out) == (0, True, False)
    assert "there are more than these 1" in ran.err


async def test_none_is_said_so(nodrop: Nodrop) -> None:
    assert (await nodrop("alerts", "list")).out == "no open alerts\n"
    assert (await nodrop("alerts", "list", "--all")).out == "no alerts\n"


async def test_messages_that_wait_are_warned_of(nodrop: Nodrop, resources: Resources) -> None:
    await resources.db.execute("INSERT INTO alert_messages (id, body) VALUES ('m', '{}')")
    assert "1 messages wait for ALERT_URL" in (await nodrop("alerts", "list")).err


async def test_a_test_needs_an_address(nodrop: Nodrop) -> None:
    ran = await nodrop("alerts", "test")
    assert (ran.code, ran.line) == (1, "ALERT_URL is not set: alerts go to the log alone")


async def test_a_test_is_sent_by_a_worker_and_noted(nodrop: Nodrop, resources: Resources) -> None:
    async with serving(always(OK)) as peer:
        env = {
            "ALERT_URL": f"{peer.url}/x",
            "ALERT_SECRET": nodrop.env["NOTIFY_SECRETS"],
            "NOTIFY_ALLOW_NETS": "127.0.0.0/8",
        }
        worker = asyncio.create_task(_send(nodrop, env))
        ran = await nodrop("alerts", "test", env=env)
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
    assert (ran.code, ran.out) == (0, "ALERT_URL has taken the test: 204\n")
    assert len(peer.requests) == 1
    assert (await nodrop("audit", "--json")).json[0]["action"] == "alert.test"


async def _send(nodrop: Nodrop, env: dict[str, str]) -> None:
    """As a worker does."""
    from core.settings import read_settings
    from runtime.resources import open_resources

    async with (
        open_resources(read_settings(nodrop.env | env)) as resources,
        AlertSender(resources.settings, resources.clock) as sender,
    ):
        while True:
            await send_due(resources, sender)
            await asyncio.sleep(0.05)


async def test_without_a_worker_a_test_says_so(nodrop: Nodrop) -> None:
    env = {"ALERT_URL": "https://alerts.example/x", "ALERT_SECRET": nodrop.env["NOTIFY_SECRETS"]}
    ran = await nodrop("alerts", "test", "--wait", "0", env=env)
    assert ran.code == 1
    assert "does a worker run?" in ran.line
