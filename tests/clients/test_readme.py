"""The examples of the client's README, run as they stand there."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.stack import Stack
from nodrop_client import AsyncClient, NewPayment
from tests.clients.messages import made, signed
from tests.clients.test_stack import pay
from tests.servers import ROOT

PLACE, RECEIVE, IN_DJANGO = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "clients" / "python" / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_the_ten_lines_sell_an_order(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """The buyer chooses and pays while the program watches."""
    code = PLACE.replace("https://pay.example.com", stack.api_url).replace('"alipay", "wechat"', '"sandbox"')
    loop = asyncio.get_running_loop()
    pages: list[str] = []

    async def choose_and_pay() -> None:
        async with AsyncClient(stack.api_url, stack.api_key) as client:
            await pay(stack, await client.start_payment("2026-1123-0001", NewPayment(account="sandbox")))

    def send_buyer_to(page: str) -> None:
        pages.append(page)
        assert httpx.get(page, trust_env=False, timeout=60).status_code == 200
        asyncio.run_coroutine_threadsafe(choose_and_pay(), loop).result(120)

    names: dict[str, Any] = {"api_key": stack.api_key, "send_buyer_to": send_buyer_to}
    await asyncio.to_thread(exec, code, names)
    assert names["order"].is_paid
    assert len(pages) == 1
    assert capsys.readouterr().out == "paid\n"


def test_the_view_of_notifications_has_its_effect_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("shop.db")) as db:
        db.execute("CREATE TABLE work (order_no TEXT PRIMARY KEY, kind TEXT)")
    secret = "whsec_" + "A" * 44
    names: dict[str, Any] = {"sqlite3": sqlite3, "secret": secret}
    exec(RECEIVE, names)  # noqa: S102 - the code of the documentation
    receive: Callable[[dict[str, str], bytes], int] = names["receive"]

    notice, now = made(), round(time.time())
    assert receive(signed(notice.id, notice.body, at=now), notice.body) == 400
    headers = signed(notice.id, notice.body, secret, at=now)
    assert [receive(headers, notice.body) for _ in range(2)] == [204, 204]
    with closing(sqlite3.connect("shop.db")) as db:
        assert db.execute("SELECT order_no, kind FROM work").fetchall() == [("A-1", "ship")]


def test_the_lines_for_django_are_python() -> None:
    """They need a shop's models; test_snippets runs Django's view of docs/notifications.md."""
    compile(IN_DJANGO, "README.md", "exec")
