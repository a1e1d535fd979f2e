"""README.md, "Put it in front of your shop": its commands in their order, unchanged, on a machine with two stores."""

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from demo.embedded import free_port
from tests.servers import ROOT

SECTION = "## Put it in front of your shop in ten minutes"
TIMEOUT_S = 300.0
PORTS = ("8000", "9100", "9200")
MARK = "-- block --"
UNTIL_NOTIFIED = r'until effects=$(\1) && [[ $effects == *order_no* ]]; do sleep 0.1; done; echo "$effects"'
"""The notification is sent by the worker, so the list may be empty at first; `TIMEOUT_S` ends the wait."""


def blocks() -> list[str]:
    """The commands of the section, block by block."""
    section = (ROOT / "README.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def script(database_url: str, redis_url: str) -> str:
    """All blocks with this machine's addresses in place of the README's, and a mark between their outputs."""
    text = f"\necho '{MARK}'\n".join(blocks())
    for port in PORTS:
        text = re.sub(rf"\b{port}\b", str(free_port()), text)
    text = text.replace("export PUBLIC_URL=", f"export PORT={port_of(text)} HOST=127.0.0.1\nexport PUBLIC_URL=", 1)
    for name, value in (("DATABASE_URL", database_url), ("REDIS_URL", redis_url)):
        text, count = re.subn(rf"^export {name}=.*$", f"export {name}={value}", text, flags=re.MULTILINE)
        assert count == 1
    text, count = re.subn(r"^(curl -sS \S+/control/effects)$", UNTIL_NOTIFIED, text, flags=re.MULTILINE)
    assert count == 1
    return "set -euo pipefail\n" + text


def port_of(text: str) -> str:
    match = re.search(r"^export PUBLIC_URL=http://127\.0\.0\.1:([0-9]+)$", text, re.MULTILINE)
    assert match is not None
    return match[1]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with `nodrop` and `python` as the virtual environment has them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, arguments in (("nodrop", "-P -m cli"), ("python", "-P")):
        command = folder / name
        command.write_text(f"#!/bin/sh\nexec '{sys.executable}' {arguments} \"$@\"\n")
        command.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.slow
async def test_the_commands_bring_a_lost_order_back(
    database_url: str, redis_url: str, path: str, tmp_path: Path
) -> None:
    env = {"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    code, output = await run(script(database_url, redis_url), env, tmp_path)
    assert code == 0, output
    _, checked, ready, _, _, placed, paid, refreshed = output.split(f"{MARK}\n")
    assert "error" not in checked
    assert '"ready":true' in ready
    assert_json_has(placed, shown_in_readme())
    assert '"status":"paid"' in paid
    assert "channel says paid 88.88 CNY" in refreshed
    assert "order 2026-1123-0001: paid by main" in refreshed
    assert re.search(r'^\{"effects":\[\{"order_no":"2026-1123-0001".*"violations":\[\]', refreshed, re.MULTILINE)


async def run(text: str, env: dict[str, str], cwd: Path) -> tuple[int, str]:
    """Run it in a session of its own, so that its background processes can be ended with it."""
    log = cwd / "output"
    with log.open("wb") as out:
        bash = await asyncio.create_subprocess_exec(
            "bash", "-c", text, cwd=cwd, env=env, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = await asyncio.wait_for(bash.wait(), TIMEOUT_S)
        finally:
            with suppress(ProcessLookupError):  # it failed before anything ran in the background
                os.killpg(bash.pid, signal.SIGKILL)
    return code, log.read_text()


def shown_in_readme() -> dict[str, Any]:
    section = (ROOT / "README.md").read_text().partition(SECTION)[2]
    (example,) = re.findall(r"^```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    shown: dict[str, Any] = msgspec.json.decode(example)
    return shown


def assert_json_has(output: str, shown: dict[str, Any]) -> None:
    """Every field in the README is in the output, with the same value except for tokens, numbers and ports."""
    document = msgspec.json.decode("{\n" + output.partition("\n{\n")[2].rpartition("\n}")[0] + "\n}")
    varies = {"order_page", "payments"}
    assert {key: document[key] for key in shown if key not in varies} == {
        key: value for key, value in shown.items() if key not in varies
    }
    (payment,) = document["payments"]
    assert shown["payments"][0].keys() <= payment.keys()
    assert payment["checkout"]["kind"] == "redirect"
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/pay/[0-9a-f]+", payment["checkout"]["value"])
    assert re.search(r"/o/[0-9A-Za-z_-]{22}$", document["order_page"])
