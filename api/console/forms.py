"""Bodies of the console's forms: fields, some of them several times, and files. Nothing is written to a disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from api.http.errors import UnsupportedBody
from api.http.fields import check_text, read_form_pairs
from api.http.request import Request
from core.errors import InvalidRequest

FIELDS_MAX = 1100
"""A page of a list has at most a thousand rows to choose from."""

HEAD_BYTES_MAX = 8 * 1024
"""Of a part: the name of its file has at most 255."""

_BOUNDARY = re.compile(r'multipart/form-data\s*;\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))\s*', re.IGNORECASE)
_DISPOSITION = re.compile(
    rb'content-disposition:\s*form-data;\s*name="([^"\r\n]*)"(?:;\s*filename="([^"\r\n]*)")?', re.IGNORECASE
)


class Upload(NamedTuple):
    """A file as the browser sent it. `name` is what the operator called it, and is a path of ours nowhere."""

    name: str
    content: bytes


class Form(NamedTuple):
    """Every field with its values, and the files that were chosen."""

    fields: Mapping[str, list[str]]
    uploads: Mapping[str, Upload]


def read_form(request: Request) -> Form:
    """The body of a form, urlencoded or in parts.

    Raises:
        UnsupportedBody: it does not say that it is a form.
        InvalidRequest: it cannot be read.
    """
    content_type = request.headers.get("content-type", "")
    fields: dict[str, list[str]] = {}
    uploads: dict[str, Upload] = {}
    if not content_type.lower().startswith("multipart/form-data"):
        for name, value in read_form_pairs(request, FIELDS_MAX):
            fields.setdefault(name, []).append(value)
        return Form(fields, uploads)
    match = _BOUNDARY.fullmatch(content_type.strip())
    if match is None:
        raise UnsupportedBody("a form in parts names its boundary")
    for name, file_name, content in _parts(request.body, (match[1] or match[2]).encode("latin-1")):
        if file_name is None:
            fields.setdefault(name, []).append(_text(name, content))
        elif file_name or content:
            uploads[name] = Upload(file_name, content)
    return Form(fields, uploads)


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, str | None, bytes]]:
    """Name, file name and content of each part (RFC 7578). The file name is None for a field."""
    # No more pieces than parts and what is around them: a body of boundaries alone would take ten times its memory.
    first, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, FIELDS_MAX + 1)
    if first or not parts or parts.pop().strip() != b"--":
        raise InvalidRequest("the form cannot be read")
    for part in parts:
        head, blank, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = head.split(b"\r\n") if blank and len(head) <= HEAD_BYTES_MAX else []
        match = next(filter(None, map(_DISPOSITION.match, lines)), None)
        if match is None:
            raise InvalidRequest("a part of the form cannot be read")
        name = _text("", match[1])
        yield name, None if match[2] is None else _text(name, match[2]), content


def _text(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the form is not UTF-8") from None
    check_text(name, text)
    return text
