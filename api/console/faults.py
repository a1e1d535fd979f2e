"""The key of a fault's texts: that of its problem, and keys of its own for what only the console has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from api.http.errors import FormForeign, RoleTooLow, SignInNeeded
from api.http.problems import UNAVAILABLE, kind_of

OWN: Mapping[type[BaseException], str] = MappingProxyType(
    {SignInNeeded: "sign_in_needed", RoleTooLow: "role_too_low", FormForeign: "form_foreign"}
)


def slug_of(error: BaseException | None) -> str:
    """The last part of the key. None: the process had no time or no room."""
    if error is None:
        return UNAVAILABLE
    return OWN.get(type(error)) or kind_of(error).slug
