"""Faults of a caller that only HTTP has. The tree is in `core.errors`, the statuses are in `api.http.problems`."""

from __future__ import annotations

from core.errors import CallerError


class Unauthorized(CallerError):
    """The API key is missing or unknown."""


class MethodNotAllowed(CallerError):
    """This address does not take this method."""


class BodyTooLarge(CallerError):
    """The body is larger than this address takes."""


class BodyTooSlow(CallerError):
    """The body did not arrive within its deadline."""


class UnsupportedBody(CallerError):
    """The body's type or encoding is not taken here."""
