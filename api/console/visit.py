"""The request of an operator, as the handlers of the console get it.

Before a handler is called, the session was open, the role was enough, and a form came from a page of this session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from api.console import texts
from api.console.forms import Form, Upload
from api.context import Context
from api.http.fields import as_fields, query_fields
from api.http.request import Request
from api.http.response import Response
from api.pages.texts import Language
from core.act_names import ActName
from core.acts import check_reason
from core.operators import Role
from core.sight import NARROW, Sight, sight_of
from storage.postgres.audit import Act, Via, write_act
from storage.postgres.database import Database
from storage.postgres.open_work import OpenWork
from storage.postgres.sessions import Session

T = TypeVar("T", bound=msgspec.Struct)

NO_FORM = Form({}, {})


def csrf_of(digest: bytes) -> str:
    """The token of the forms of a session. It tells nothing about the cookie, of which this is a hash of a hash."""
    return sha256(b"form" + digest).hexdigest()


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence that the next page says once: the key of a text, and its words."""

    key: str
    values: Mapping[str, Any] = {}


class SeeOther(Response, frozen=True, kw_only=True):
    """A 303 with a notice, which is kept in the session and never in an address."""

    notice: Notice | None = None


@dataclass(slots=True, kw_only=True)
class Reader:
    """A reader of a page, signed in or not: the language, the colours and the address of the page."""

    lang: str
    theme: str = ""
    path: str = "/ops"
    now: datetime
    back: str = ""
    """The page of the console on which the form or the link was, as far as the browser says so."""

    @property
    def language(self) -> Language:
        return texts.LANGUAGES[self.lang]

    @property
    def sight(self) -> Sight:
        """Sight of texts that can name a payer."""
        return NARROW


@dataclass(slots=True, kw_only=True)
class Visit(Reader):
    """One request of an operator."""

    request: Request
    session: Session
    db: Database
    body: Form = NO_FORM
    has_shown_notice: bool = False
    open_work: OpenWork | None = None
    """Counts of work that waits for people; None: not counted, as for a part of a page."""
    _query: dict[str, str] | None = None

    @property
    def operator(self) -> str:
        """The operator's name."""
        return self.session.operator

    @property
    def role(self) -> Role:
        return self.session.role

    @property
    def sight(self) -> Sight:
        return sight_of(self.session.role)

    @property
    def params(self) -> Mapping[str, str]:
        """The parameters in the path."""
        return self.request.params

    @property
    def csrf(self) -> str:
        return csrf_of(self.session.digest)

    def may(self, role: Role) -> bool:
        """Whether the operator has the rights of this role; templates take its name."""
        return self.session.role.may(Role(role))

    # -- what was sent

    @property
    def query(self) -> Mapping[str, str]:
        """The fields of the query string that are not empty. Raises InvalidRequest."""
        if self._query is None:
            self._query = {name: value for name, value in query_fields(self.request).items() if value.strip()}
        return self._query

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of the form, each with its first value."""
        return {name: values[0] for name, values in self.body.fields.items()}

    def values(self, name: str) -> list[str]:
        """All values of a field that may be there several times."""
        return self.body.fields.get(name, [])

    def upload(self, name: str) -> Upload | None:
        """The file that was chosen; None: none was."""
        return self.body.uploads.get(name)

    def reason(self) -> str:
        """The reason in the form, on one line. Raises InvalidRequest when there is none, or it is too long."""
        return check_reason(" ".join(self.form.get("reason", "").split()))

    def read_query(self, type_: type[T]) -> T:
        """The query string as `type_`; an empty field counts as left out. Raises InvalidRequest."""
        return as_fields(self.query, type_)

    def read_form(self, type_: type[T]) -> T:
        """The form as `type_`; an empty field counts as left out. Raises InvalidRequest."""
        return as_fields({name: value for name, value in self.form.items() if value.strip()}, type_)

    def url(self, **changes: object) -> str:
        """The address of this page with these fields of its query changed; None leaves one out."""
        kept = {name: str(value) for name, value in {**self.query, **changes}.items() if value is not None}
        return self.path + (f"?{urlencode(kept)}" if kept else "")

    # -- what is written

    async def record(self, action: ActName, subject: str = "", detail: Mapping[str, Any] | None = None) -> None:
        """Write down what the operator is about to do. Raises DatabaseUnavailable: then it must not be done."""
        act = Act(by=self.operator, via=Via.CONSOLE, action=action, subject=subject, detail=detail or {})
        await write_act(self.db, act)


def path_of(pattern: str, **values: str) -> str:
    """`/ops/orders/{order_no}` with values in it, percent-encoded."""
    return pattern.format(**{name: quote(value, safe="") for name, value in values.items()})


def make_visit(context: Context, request: Request, pattern: str) -> Visit:
    session = request.session
    assert session is not None, "the gate lets nobody else in"
    return Visit(
        lang=texts.choose(session.language, request.headers.get("accept-language", "")),
        theme=session.theme,
        path=path_of(pattern, **request.params),
        back=back_of(request.headers),
        now=context.resources.clock.now(),
        request=request,
        session=session,
        db=context.resources.db,
    )


def back_of(headers: Mapping[str, str]) -> str:
    """The page of the console from which the browser comes; empty: another one, or it does not say."""
    came = urlsplit(headers.get("referer", ""))
    is_ours = came.netloc == headers.get("host", "") and came.path.startswith("/ops/") and "//" not in came.path
    return (came.path + (f"?{came.query}" if came.query else "")) if is_ours else ""
