"""Sight: how much of the merchant's and the buyers' texts a reader may see. Pure, and the one place that decides it.

Everybody who signs in sees figures, states, numbers and times. Texts that the merchant, a channel or a person wrote may
name the payer, an address may carry a token in its query, and a page's link opens the page: those are for operators.
[Decision 33](../docs/decisions/0033-a-viewer-sees-no-payer.md) has the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from core.deliveries import endpoint_of
from core.operators import Role

MASKED = "***"

_ALONE = r"(?<![0-9A-Za-z_\-]){}(?![0-9A-Za-z_\-])"
_PERSONAL = re.compile(
    "|".join(
        (
            r"[^\s@<>\"'(),:;=/\[\]{}]{1,64}@[0-9A-Za-z\u0080-\uffff][0-9A-Za-z.\-\u0080-\uffff]{0,253}",
            r"(?<![0-9A-Za-z_])\+[0-9][0-9 .()\-]{6,18}[0-9](?![0-9A-Za-z_])",
            _ALONE.format(r"1[3-9][0-9][ \-]?[0-9]{4}[ \-]?[0-9]{4}"),
            _ALONE.format(r"2088[0-9]{12}"),
            _ALONE.format(r"o(?=\S*[A-Z])(?=\S*[a-z])[0-9A-Za-z_\-]{27}"),
            _ALONE.format(r"[1-9][0-9]{5}(?:19|20)[0-9]{2}[01][0-9][0-3][0-9][0-9]{3}[0-9Xx]"),
        )
    ),
    re.ASCII,
)
"""E-mail addresses, telephone numbers with their country or of a mobile in China, user ids of Alipay, openids of WeChat
and identity numbers of China. Numbers of orders, payments and transactions have other forms, except those of a shop
that numbers its orders like telephones: in a text they are masked, and in their own columns never.
"""


class Sight(msgspec.Struct, frozen=True):
    """The sight of one reader. `is_whole`: nothing is masked."""

    is_whole: bool

    def text(self, text: str) -> str:
        """A free text: of an order, a case, a reason, or a channel."""
        return text if self.is_whole else _PERSONAL.sub(MASKED, text)

    def url(self, url: str) -> str:
        """An address of the merchant: without its user, its query and its fragment, which may hold a token."""
        if self.is_whole:
            return url
        endpoint = endpoint_of(url)
        scheme, mark, rest = endpoint.partition("://")
        host, slash, path = rest.partition("/")
        shown = f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{self.text(path)}" if mark else self.text(endpoint)
        return shown if endpoint == url else f"{shown}?{MASKED}"

    def metadata(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """The merchant's own data about the order: the names alone."""
        if self.is_whole:
            return dict(metadata)
        return {self.text(name): MASKED for name in metadata}

    def answer(self, answer: str) -> str:
        """The beginning of the response of a merchant's endpoint, in which anything may be."""
        return answer if self.is_whole or not answer else MASKED


WHOLE = Sight(True)
NARROW = Sight(False)


def sight_of(role: Role) -> Sight:
    """The sight of an operator with this role. Raw bodies are shown to nobody unasked: that is an act, with a row in
    the audit.
    """
    return WHOLE if role.may(Role.OPERATOR) else NARROW
