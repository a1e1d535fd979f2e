"""The shop's name, logo, colour and contact on its pages, and what strangers could put there."""

import dataclasses
import re
from pathlib import Path

import pytest

from api.context import Context
from api.http.asgi import App
from api.shop import LOGO_BYTES_MAX, Shop, open_shop
from core.errors import ConfigurationError
from core.settings import Settings
from tests.api.conftest import terms, token_of
from tests.api.driver import Client

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
SVG = b'<?xml version="1.0"?>\n<!-- ours -->\n<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EVIL = "\"'></bdi></p><script>alert(1)</script>"


def shop_with_logo(folder: Path, content: bytes) -> Shop:
    (folder / "logo").write_bytes(content)
    return open_shop(Settings(shop_logo=str(folder / "logo")))


@pytest.mark.parametrize(
    ("content", "ending"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "jpg"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "webp"),
        (SVG, "svg"),
        (b"<svg>", "svg"),
        (b"\n\xef\xbb\xbf <!-- a -->" + b"<!---->" * 500 + b"<svg ", "svg"),
    ],
)
def test_a_logo_is_known_by_its_content(tmp_path: Path, content: bytes, ending: str) -> None:
    shop = shop_with_logo(tmp_path, content)
    assert re.fullmatch(rf"/o/static/logo\.[0-9a-f]{{12}}\.{ending}", shop.url("logo"))
    answer = shop.find(shop.url("logo").rpartition("/")[2])
    assert answer is not None
    assert answer.body == content
    assert "sandbox" in dict(answer.headers)["content-security-policy"], "an SVG that is opened alone runs no script"
    assert shop.find("logo.000000000000.exe") is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"GIF89a", "PNG, JPEG, WebP or SVG"),
        (b"<html><svg>", "PNG, JPEG, WebP or SVG"),
        (b"<!---->" * 500 + b"<html>", "PNG, JPEG, WebP or SVG"),
        (b" " * 4000 + b"x", "PNG, JPEG, WebP or SVG"),
        (b"", "PNG, JPEG, WebP or SVG"),
        (PNG + bytes(LOGO_BYTES_MAX), "more than 64 KiB"),
    ],
)
def test_a_logo_that_is_none_ends_the_start(tmp_path: Path, content: bytes, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        shop_with_logo(tmp_path, content)
    assert caught.value.detail.startswith("SHOP_LOGO: ")
    assert fault in caught.value.detail


def test_a_logo_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"SHOP_LOGO: .* cannot be read: No such file"):
        open_shop(Settings(shop_logo=str(tmp_path / "nothing.png")))


async def test_a_page_is_the_shops(app: App[Context], client: Client, buyer: Client, tmp_path: Path) -> None:
    (tmp_path / "logo").write_bytes(PNG)
    settings = Settings(
        shop_name="Tea & Co",
        shop_color="#ffd400",
        shop_contact="mailto:help@tea.example",
        shop_logo=str(tmp_path / "logo"),
    )
    shop = open_shop(settings)
    app.context = dataclasses.replace(app.context, shop=shop)
    order = (await client.post("/v1/orders", terms(return_url="https://tea.example/done"))).json
    page = (await buyer.get(f"/o/{token_of(order)}")).body.decode()
    assert f'<img id="logo" src="{shop.url("logo")}" alt="" height="40"><bdi>Tea &amp; Co</bdi>' in page
    assert 'rel="noreferrer">Back to <bdi>Tea &amp; Co</bdi></a>' in page
    assert '<a href="mailto:help@tea.example" rel="noreferrer">Questions? Ask <bdi>Tea &amp; Co</bdi></a>' in page
    style = await buyer.get(shop.url("shop"))
    assert style.body == b":root { --brand: #ffd400; --on-brand: #000000; }\n"
    assert (await buyer.get(shop.url("logo"))).headers["content-type"] == "image/png"
    assert "immutable" in style.headers["cache-control"]
    other = await buyer.get("/o/static/shop.000000000000.css")
    assert (other.body, other.headers["cache-control"]) == (style.body, "no-store")
    worker = (await buyer.get("/o/sw.js")).body.decode()
    assert all(url in worker for url in shop.urls()), "the shell has them offline"
    assert "mailto:" in (await buyer.get("/o/nobody-has-this-token")).body.decode()


async def test_without_settings_a_page_has_no_shop(client: Client, buyer: Client) -> None:
    page = (await buyer.get(f"/o/{token_of((await client.post('/v1/orders', terms())).json)}")).body.decode()
    assert not re.search("<header>|<img|mailto", page)


async def test_texts_of_the_shop_are_text_and_never_markup(app: App[Context], client: Client, buyer: Client) -> None:
    app.context = dataclasses.replace(app.context, shop=Shop(name=EVIL, contact=EVIL))
    body = terms(return_url="https://tea.example/done", subject=EVIL, metadata={EVIL: EVIL})
    order = (await client.post("/v1/orders", body)).json
    for address in (f"/o/{token_of(order)}", f"/o/{token_of(order)}?lang={EVIL}", "/o/shell", "/o/nobody-has-this"):
        page = (await buyer.get(address.replace('"', "%22").replace("<", "%3C").replace(">", "%3E"))).body.decode()
        assert "<script>alert" not in page
        assert re.search(r'href="[^"]*"[^ />]', page) is None, "no text ends an attribute"
