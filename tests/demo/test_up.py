"""`nodrop up` as a person types it: the shop's address comes first, and Ctrl-C ends everything."""

import re
import socket
from pathlib import Path
from signal import SIGINT

import httpx
import pytest
from click.testing import CliRunner

from demo import up
from demo.service import NO_TLS
from tests.servers import Process


def test_up_on_a_port_in_use_names_it_and_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the processes of another `nodrop up` would answer for its own, which have ended."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(up, "SHOP_PORT", port)
        monkeypatch.setattr(up, "PORTS", {})
        ran = CliRunner().invoke(up.up, [])
    assert (ran.exit_code, ran.output) == (
        1, f"Error: in use: {port}; end what listens there, or take others by --any-ports\n",
    )  # fmt: skip


@pytest.mark.slow
async def test_up_opens_a_shop_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    async with Process("cli", "up", "--any-ports", env={}, log=tmp_path / "up.log") as process:
        line = await process.wait_for_line("The accounts are")
        assert "wechatpay, stripe, paypal" in line
        first, *others = re.findall(r"http://127\.0\.0\.1:[0-9]+", process.output())
        async with httpx.AsyncClient(base_url=first, trust_env=False, verify=NO_TLS, timeout=60) as shop:
            assert "Place the order" in (await shop.get("/")).text
            placed = await shop.post("/orders", data={"product": "tea", "account": "alipay"})
            assert placed.headers["location"].startswith(f"{others[0]}/o/"), "the order's page is nodrop's"
        await sign_in(others[0], process.output())
        process.send(SIGINT)
        assert await process.wait() == 0
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        for url in (first, *others):
            with pytest.raises(httpx.ConnectError):
                await client.get(url)


async def sign_in(url: str, output: str) -> None:
    """Sign in to the console with the printed password, which leads to the page that changes it."""
    [name, password] = re.findall(r"/ops +\(sign in as (\w+) with (\S+) once", output)[0]
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=NO_TLS, timeout=60) as browser:
        page = (await browser.get("/ops/signin")).text
        [token] = re.findall(r'name="form" value="([^"]+)"', page)
        form = {"form": token, "name": name, "password": password}
        entered = await browser.post("/ops/signin", data=form, headers={"origin": url})
        assert entered.status_code == 303, entered.text
        assert (await browser.get("/ops")).headers["location"] == "/ops/me", "the password is good for one sign-in"
