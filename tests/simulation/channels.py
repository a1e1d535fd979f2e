"""The five simulated channels and their pay pages in a world, with their real schedules of resends.

They are the same ones that the demo starts as a process. Their clock is the world's, their callbacks go over its
network, each channel by its own link, and each of their faults is an entry of its book.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from simulator.alipay.channel import Alipay
from simulator.kernel import dispatch, pay_page
from simulator.kernel.base import EventType
from simulator.kernel.dispatch import ChannelServer
from simulator.kernel.faults import Fault, FaultProfile, Faults
from simulator.kernel.ledger import Key, Ledger, Payment, Refusal, Terms
from simulator.kernel.simulation import Simulation, id_of_callback
from simulator.kernel.snapshot import LedgerSnapshot, take
from simulator.kit.asgi import App
from simulator.paypal.channel import Paypal
from simulator.sandbox.channel import Sandbox
from simulator.stripe.channel import Stripe
from simulator.wechatpay.channel import WechatPay
from tests.simulation.faults import FaultBook, Names
from tests.simulation.network import HOST, Network, Server

PAGES_PORT = 9000
PORTS = {"sandbox": 9001, "alipay": 9002, "wechatpay": 9003, "stripe": 9004, "paypal": 9005}

PROPORTIONS = {"wechatpay": 0.45, "alipay": 0.35, "stripe": 0.09, "paypal": 0.06, "sandbox": 0.05}
"""Shares of the orders: a Chinese shop that sells abroad, too."""

CURRENCIES = {
    "sandbox": ("CNY", "USD", "JPY", "KWD"),
    "alipay": ("CNY",),
    "wechatpay": ("CNY",),
    "stripe": ("USD", "CNY", "JPY"),
    "paypal": ("USD", "JPY"),
}


class Opened(NamedTuple):
    """An account for nodrop's configuration."""

    name: str
    channel: str
    base_url: str
    credentials: dict[str, Any]


class BookedFaults(Faults):
    """The faults of the simulators, drawn by the world's book and by names that stay."""

    def __init__(self, book: FaultBook) -> None:
        super().__init__(book.seed)
        self._book = book
        self.is_on = True

    def applies(self, fault: Fault, number: str, counter: int = 0) -> bool:
        share: float = getattr(self.profile, fault)
        if share <= 0 or not self.is_on:
            return False
        return self._book.applies(f"channel {fault} {self._book.names.of(number)} #{counter}", share)


class NamingLedger(Ledger):
    """A ledger that learns whose a payment is: the orders of a world have their number as their subject."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def create(self, merchant_id: str, terms: Terms, now: datetime) -> Payment | Refusal:
        paid_event = id_of_callback(EventType.PAYMENT_PAID, Key(merchant_id, terms.out_trade_no))
        self._names.learn(terms.subject, terms.out_trade_no, paid_event)
        return super().create(merchant_id, terms, now)


class Channels:
    """All channels of a world. Enter `simulation` before use."""

    def __init__(self, network: Network, *, now: Callable[[], datetime], api_url: str) -> None:
        book = network.book
        self._network = network
        self._api_url = api_url
        self.faults = BookedFaults(book)
        self.opened: list[Opened] = []
        channels: tuple[ChannelServer, ...] = (Sandbox(), Alipay(), WechatPay(), Stripe(), Paypal())
        self.simulation = simulation = Simulation(
            {channel.name: channel for channel in channels},
            seed=book.seed,
            now=now,
            client=network.client(lambda url: url.rpartition("/")[2]),
            faults=self.faults,
        )
        simulation.ledger = NamingLedger(book.names)
        simulation.base_url = f"http://{HOST}:{PAGES_PORT}"
        simulation.urls = {name: f"http://{HOST}:{port}" for name, port in PORTS.items()}
        network.serve(PAGES_PORT, Server("pages", app=App(pay_page.routes(simulation), now=simulation.now)))
        for channel in channels:
            app = App(dispatch.routes(simulation, channel), now=simulation.now)
            network.serve(PORTS[channel.name], Server(channel.name, app=app))

    def open_account(self, channel: str, name: str = "") -> Opened:
        """Open an account at a channel with new keys for both sides."""
        name = name or channel
        opened = self.simulation.channels[channel].open_account(name, f"{self._api_url}/callbacks/{name}")
        self.simulation.accounts[opened.account.merchant_id] = opened.account
        self.opened.append(Opened(name, channel, self.simulation.urls[channel], opened.credentials))
        return self.opened[-1]

    def set_faults(self, profile: FaultProfile) -> None:
        self.faults.profile = profile

    def end_faults(self) -> None:
        """From now on all goes well; what is under way takes its course."""
        self.faults.is_on = False
        self.faults.profile = FaultProfile()

    def ledger(self) -> LedgerSnapshot:
        """Return the truth."""
        return take(self.simulation)
