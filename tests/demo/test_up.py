"""`nodrop up` as a person types it: the shop's address comes first, and Ctrl-C ends everything."""

import re
from pathlib import Path
from signal import SIGINT

import httpx
import pytest

from demo.service import NO_TLS
from tests.servers import Process


@pytest.mark.slow
async def test_up_opens_a_shop_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    async with Process("cli", "up", "--any-ports", env={}, log=tmp_path / "up.log") as up:
        line = await up.wait_for_line("The accounts are")
        assert "wechatpay, stripe, paypal" in line
        first, *others = re.findall(r"http://127\.0\.0\.1:[0-9]+", up.output())
        async with httpx.AsyncClient(base_url=first, trust_env=False, verify=NO_TLS, timeout=60) as shop:
            assert "Place the order" in (await shop.get("/")).text
            placed = await shop.post("/orders", data={"product": "tea", "account": "alipay"})
            assert placed.headers["location"].startswith(f"{others[0]}/o/"), "the order's page is nodrop's"
        up.send(SIGINT)
        assert await up.wait() == 0
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        for url in (first, *others):
            with pytest.raises(httpx.ConnectError):
                await client.get(url)
