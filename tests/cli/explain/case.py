"""A callback or an answer in files, as integrators have them, and `nodrop explain` run on it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.account import AccountConfig
from tests.channels.driver import Driver
from tests.channels.reports import AMOUNT, NUMBER, OFFLINE_URL, CallbackRequest, Key, PaymentReport
from tests.channels.wire import WireRequest, WireResponse
from tests.cli.nodrop import Nodrop, Ran

AT = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
CURRENCY = "CNY"


def toml_of(value: object) -> str:
    """A value as TOML writes it; JSON's texts are TOML's."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(toml_of, value)) + "]"
    return json.dumps(value)


def account_toml(account: AccountConfig, table: str = "") -> str:
    """The account as an operator writes it down, alone in its file or as one table of many."""
    lines = [f"[{table}]"] if table else []
    lines += [f'channel = "{account.channel}"', f'base_url = "{account.base_url}"', f"live = {toml_of(account.live)}"]
    lines += [f"[{table}.credentials]" if table else "[credentials]"]
    return "\n".join([*lines, *(f"{key} = {toml_of(value)}" for key, value in account.credentials.items()), ""])


class Case:
    """Files in one folder, and the command on them."""

    def __init__(self, folder: Path, nodrop: Nodrop, driver: Driver) -> None:
        self.folder = folder
        self.driver = driver
        self._nodrop = nodrop
        self.account = driver.account(OFFLINE_URL, Key.NEW, Key.OLD)
        self.put("accounts.toml", account_toml(self.account, "main"))

    def put(self, name: str, content: str | bytes | object) -> str:
        """Write a file, as JSON unless it is text or bytes, and return its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        raw = content if isinstance(content, bytes | str) else json.dumps(content)
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
        return str(path)

    def sent(self, report: PaymentReport | None = None, *, key: Key = Key.NEW, at: datetime = AT) -> CallbackRequest:
        driver = self.driver
        content = driver.render_callback(report or PaymentReport(), driver.notification_id)
        return driver.sign_callback(content, driver.notification_id, at=at.timestamp(), key=key)

    async def callback(self, sent: CallbackRequest, *more: str, at: datetime | None = AT, as_json: bool = True) -> Ran:
        headers = {name.title(): value for name, value in sent.headers.items()}
        files = ("--headers", self.put("headers.json", headers), "--body", self.put("body", sent.body))
        return await self._run("callback", *files, *more, at=at, as_json=as_json)

    def answered(self, report: PaymentReport | None = None, *, key: Key = Key.NEW, at: datetime = AT) -> WireResponse:
        driver = self.driver
        headers = {"sandbox-signature": "v1=" + "0" * 64}
        request = WireRequest("POST", "/gateway.do?method=alipay.trade.query", headers, b"", b"")
        return driver.signed_response(
            request, 200, driver.render(report or PaymentReport()), at=at.timestamp(), key=key
        )

    async def answer(self, answered: WireResponse, *more: str, at: datetime | None = AT, number: str = NUMBER) -> Ran:
        files = (
            *("--headers", self.put("headers.json", answered.headers)),
            *("--body", self.put("body", answered.body), "--out-trade-no", number),
        )
        return await self._run("answer", *files, *more, at=at, as_json=True)

    def order(self, **more: object) -> tuple[str, str]:
        payment = self.driver.payment()
        order = {"out_trade_no": NUMBER, "amount": AMOUNT, "currency": payment.currency, **more}
        return "--order", self.put("order.json", order)

    async def _run(self, command: str, *arguments: str, at: datetime | None, as_json: bool) -> Ran:
        fixed = ["--account", "main"]
        if "--accounts" not in arguments:
            fixed += ["--accounts", str(self.folder / "accounts.toml")]
        if at is not None:
            fixed += ["--at", at.isoformat()]
        return await self._nodrop("explain", command, *fixed, *arguments, *(["--json"] if as_json else []))


def secrets_in(credentials: Mapping[str, Any]) -> list[str]:
    """Every long text of the credentials, line by line: a key in PEM must not be shown in part either."""
    from channels.credentials import texts_of

    texts = [
        text for key, value in credentials.items() if not key.endswith(("id", "serial")) for _, text in texts_of(value)
    ]
    return [line for text in texts for line in text.splitlines() if len(line) >= 16 and not line.startswith("-----")]
