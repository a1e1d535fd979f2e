"""Bodies of forms that no browser sends."""

import tracemalloc

import pytest

from api.console.forms import FIELDS_MAX, read_form
from api.http.request import Request
from core.errors import InvalidRequest


def in_parts(body: bytes, boundary: str = "b") -> Request:
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    return Request(method="POST", params={}, query="", headers=headers, address="", body=body)


def field(name: str, value: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def test_a_form_has_as_many_parts_as_fields() -> None:
    assert len(read_form(in_parts(field("a", "1") * FIELDS_MAX + b"--b--\r\n")).fields["a"]) == FIELDS_MAX
    with pytest.raises(InvalidRequest):
        read_form(in_parts(field("a", "1") * (FIELDS_MAX + 1) + b"--b--\r\n"))


def test_a_body_of_boundaries_alone_takes_no_memory_for_each() -> None:
    request = in_parts(b"--b" + b"\r\n--b" * (1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            read_form(request)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(request.body)
