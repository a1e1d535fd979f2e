"""Operators of the console: their roles, and the forms of a name and a password. Pure."""

from __future__ import annotations

import re
from enum import StrEnum

from core.errors import InvalidRequest
from core.sentences import Sentence

PASSWORD_CHARACTERS_MIN = 12
PASSWORD_CHARACTERS_MAX = 200
"""NIST SP 800-63B-4 wants 15 for a password alone and 8 beside a second factor, and no rules about kinds of characters.
The longest bounds what is hashed for a stranger."""

_DIFFERENT_MIN = 5

KEY_ID = re.compile(r"key_[0-9a-f]{12}", re.ASCII)
"""Id of an API key. Where a name stands, it is a key of nobody, and no person."""

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,39}", re.ASCII)


class Role(StrEnum):
    """The rights of an operator, each with those before it."""

    VIEWER = "viewer"
    """Reads figures and states, and texts without what names a payer: `core.sight`."""

    OPERATOR = "operator"
    """Also acts on orders, cases, notifications and accounts, and agrees to a refund of somebody else."""

    ADMIN = "admin"
    """Also acts on operators."""

    def may(self, needed: Role) -> bool:
        """Whether this role has the rights of the one that is needed."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = tuple(Role)


def check_name(name: str) -> str:
    """The name, which is kept in the audit.

    Raises:
        InvalidRequest: it has not the form of one.
    """
    if _NAME.fullmatch(name) is None or KEY_ID.fullmatch(name) is not None:
        raise InvalidRequest("a name is 1 to 40 small letters, digits, dots, hyphens or underscores, a letter first")
    return name


def check_password(password: str, *, name: str) -> str:
    """The password that somebody has chosen.

    Raises:
        InvalidRequest: it is too short or too long, or it is the name or one character over and over.
    """
    if not PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX:
        limits = {"min": PASSWORD_CHARACTERS_MIN, "max": PASSWORD_CHARACTERS_MAX}
        raise InvalidRequest(Sentence("a password has {min} to {max} characters", **limits))
    rest = password.lower().replace(name, "")
    if len(set(rest)) < _DIFFERENT_MIN:
        raise InvalidRequest("this password is too easy to guess: it is the name, or few characters over and over")
    return password
