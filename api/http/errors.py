"""Faults of a caller that only HTTP has. The tree is in `core.errors`, the statuses are in `api.http.problems`."""

from __future__ import annotations

from core.errors import CallerError


class Unauthorized(CallerError):
    title = "The API key is missing, unknown or expired."


class Forbidden(CallerError):
    title = "The API key may not do this."


class SignInNeeded(Unauthorized):
    title = "Nobody is signed in."


class PasswordChangeNeeded(SignInNeeded):
    title = "The password has to be changed before anything else."


class RoleTooLow(Forbidden):
    title = "This needs another role."


class FormForeign(Forbidden):
    title = "This form was not sent from a page of this console."


class MethodNotAllowed(CallerError):
    title = "This address does not take this method."


class BodyTooLarge(CallerError):
    title = "The body is larger than this address takes."


class BodyTooSlow(CallerError):
    title = "The body did not arrive within its deadline."


class UnsupportedBody(CallerError):
    title = "The body's type or encoding is not taken here."
