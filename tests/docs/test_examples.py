"""The shops of `examples/` where a shop that copies them would lose: secrets, refusals and numbers."""

import base64
import hmac
import io
import re
import time
from collections.abc import Callable
from email.message import Message
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from tests.servers import ROOT

KEY = bytes(range(32))
LoadShop = Callable[..., ModuleType]


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@pytest.fixture
def load_plain_shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoadShop:
    def load(secret: str = secret_of(KEY)) -> ModuleType:
        variables = {
            "NODROP_URL": "https://pay.test",
            "NODROP_API_KEY": "nk_canary",
            "NOTIFY_SECRET": secret,
            "SHOP_URL": "https://shop.test",
            "ACCOUNTS": "sandbox",
            "DATABASE": str(tmp_path / "shop.db"),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        spec = spec_from_file_location("plain_shop", ROOT / "examples" / "plain" / "plain_shop.py")
        assert spec is not None
        assert spec.loader is not None
        shop = module_from_spec(spec)
        spec.loader.exec_module(shop)
        with shop.closing(shop.connect()) as db:
            db.executescript(shop.TABLES)
        return shop

    return load


@pytest.mark.parametrize("secret", ["", "whsec_", secret_of(b"short"), "whsec_!!!"])
def test_a_shop_does_not_start_with_a_secret_that_anybody_has(load_plain_shop: LoadShop, secret: str) -> None:
    with pytest.raises(SystemExit, match="NOTIFY_SECRET"):
        load_plain_shop(secret).main()


@pytest.mark.parametrize(("key", "is_genuine"), [(KEY, True), (b"", False)])
def test_only_what_nodrop_signed_is_genuine(load_plain_shop: LoadShop, key: bytes, is_genuine: bool) -> None:
    timestamp = str(int(time.time()))
    mac = hmac.digest(key, f"msg_1.{timestamp}.".encode() + b"{}", "sha256")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1,AAAA v1," + base64.b64encode(mac).decode(),
    }
    assert load_plain_shop().is_genuine(headers, b"{}") is is_genuine


def test_a_refusal_takes_no_page_from_an_order_that_was_placed(
    load_plain_shop: LoadShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is revoked, and a buyer who has paid sends the order again."""
    shop = load_plain_shop()
    answers: list[io.BytesIO | HTTPError] = [io.BytesIO(b'{"order_page": "https://pay.test/o/T"}'), refusal(401)]

    def answer(_: Request, timeout: float) -> io.BytesIO:
        step = answers.pop(0)
        if isinstance(step, io.BytesIO):
            return step
        raise step

    monkeypatch.setattr(shop, "urlopen", answer)
    order_no = shop.buy("tea")
    shop.place(order_no)
    assert answers == []
    assert 'href="https://pay.test/o/T"' in shop.show_order(order_no)


def refusal(status: int) -> HTTPError:
    headers = Message()
    headers["content-type"] = "application/problem+json"
    return HTTPError("https://pay.test/v1/orders", status, "", headers, io.BytesIO(b'{"detail": "no such key"}'))


@pytest.mark.parametrize("shop", sorted((ROOT / "examples").glob("*/*_shop.py")), ids=lambda path: path.stem)
def test_nobody_guesses_the_number_of_an_order(shop: Path) -> None:
    """The shop's page of an order needs nothing else, and leads to its page at nodrop."""
    [octets] = re.findall(r'f"shop-\{secrets\.token_hex\((\d+)\)\}"', shop.read_text())
    assert int(octets) * 8 >= 96
