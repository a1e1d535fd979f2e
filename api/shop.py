"""The shop's look on the pages: its name, contact, logo and colour. Read once at start; files are named by content.

A logo is only ever an `<img>`. An SVG that is opened by itself runs in a sandbox, without scripts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from api.http import hashed
from api.http.response import Response
from core.errors import ConfigurationError
from core.settings import Settings
from core.shop import text_color

LOGO_BYTES_MAX = 65536

_TYPES = {
    "css": "text/css; charset=utf-8",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "svg": "image/svg+xml",
}
_SVG = re.compile(rb"\s*+(?:\xef\xbb\xbf)?(?:<\?xml.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*>|\s)*+<svg[\s>]", re.DOTALL)
_SANDBOX = ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """The look of the shop; empty: not set. `files` has what is served by plain name, like `logo.png`."""

    name: str = ""
    contact: str = ""
    files: Mapping[str, Response] = {}

    def url(self, stem: str) -> str:
        """`logo` → `/o/static/logo.0123456789ab.png`; empty when the shop has no such file."""
        name = next((name for name in self.files if name.startswith(f"{stem}.")), "")
        return hashed.url(name, self.files[name].body) if name else ""

    def urls(self) -> list[str]:
        return [url for stem in ("shop", "logo") if (url := self.url(stem))]

    def find(self, hashed_name: str) -> Response | None:
        """The file of a hashed name, or None."""
        return hashed.find(hashed_name, self.files)


NO_SHOP = Shop()


def open_shop(settings: Settings) -> Shop:
    """The shop of these settings, with its logo.

    Raises:
        ConfigurationError: the logo cannot be read, is too large, or is no picture that browsers show.
    """
    contents = {}
    if settings.shop_color:
        contents["shop.css"] = _style(settings.shop_color)
    if settings.shop_logo:
        logo = _read_logo(Path(settings.shop_logo))
        contents[f"logo.{_ending(logo)}"] = logo
    files = {name: _file(name, content) for name, content in contents.items()}
    return Shop(name=settings.shop_name, contact=settings.shop_contact, files=files)


def _file(name: str, content: bytes) -> Response:
    return Response(body=content, content_type=_TYPES[name.rpartition(".")[2]], headers=(_SANDBOX,))


def _style(color: str) -> bytes:
    return f":root {{ --brand: {color}; --on-brand: {text_color(color)}; }}\n".encode()


def _read_logo(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LOGO_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"SHOP_LOGO: {path} cannot be read: {error.strerror}") from None
    if len(content) > LOGO_BYTES_MAX:
        raise ConfigurationError(f"SHOP_LOGO: {path} has more than {LOGO_BYTES_MAX // 1024} KiB")
    return content


def _ending(content: bytes) -> str:
    """The kind of picture, by its first bytes and not by its name."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if _SVG.match(content[:4096]):
        return "svg"
    raise ConfigurationError("SHOP_LOGO: set it to a file that is a PNG, JPEG, WebP or SVG picture")
