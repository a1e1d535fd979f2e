"""The stock `arq` command runs the same jobs from the same queues, and `arq --check` tells whether it does."""

import asyncio
import sys
from pathlib import Path

from demo.embedded import temporary_directory
from demo.service import ROOT
from demo.stack import Stack
from simulator.shoppers.shop import OrderRequest, ShopOrder
from tests.servers import eventually

ARQ = Path(sys.executable).parent / "arq"


async def test_the_stock_command_asks_notifies_and_is_healthy() -> None:
    with temporary_directory() as directory:
        async with Stack(directory, workers=0, fsync=False) as stack:
            lanes = [await _arq(stack, f"worker.arq_settings.{lane}Settings") for lane in ("Queries", "Notifications")]
            async with stack.shop() as shop:
                order = await shop.place(_order(stack))
            assert isinstance(order, ShopOrder)
            number = order.payments[0].out_trade_no
            lost = {"at_fault": {"callback": "lost"}}
            await stack.control("POST", "channel", f"/control/payments/{number}/pay", lost)

            await eventually(lambda: _effects(stack))

            check = await _arq(stack, "--check", "worker.arq_settings.QueriesSettings")
            assert await check.wait() == 0
            for lane in lanes:
                lane.terminate()
            assert [await lane.wait() for lane in lanes] == [0, 0]


async def _arq(stack: Stack, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        ARQ,
        *arguments,
        cwd=ROOT,
        env=stack.environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT,
    )


def _order(stack: Stack) -> OrderRequest:
    return OrderRequest(
        order_no="stock-1",
        amount=8888,
        currency="CNY",
        subject="Tea",
        account="sandbox",
        notify_url=stack.notify_url,
        expires_in_s=600,
    )


async def _effects(stack: Stack) -> list[object]:
    return list((await stack.control("GET", "merchant", "/control/effects"))["effects"])
