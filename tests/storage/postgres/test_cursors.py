"""Places in listings: they lead back, and nothing else is one."""

from datetime import UTC, datetime

import pytest

from core.errors import InvalidRequest
from storage.postgres.cursors import decode_cursor, decode_numbered, encode_cursor, is_number, is_text

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_cursor_leads_back_to_its_place() -> None:
    assert decode_cursor(encode_cursor(AT, "A-1"), is_text) == (AT, "A-1")
    assert decode_cursor(None, is_text) == (None, None)
    assert decode_numbered(encode_cursor(AT, "12")) == (AT, 12)
    assert decode_numbered(None) == (None, None)
    assert set(encode_cursor(AT, "A-1?&/+ü")) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_")


@pytest.mark.parametrize("key", ["", "-1", "1" * 19, "1\n", "\u0661", "x"])
def test_a_key_that_no_row_can_have_is_refused_before_postgres_sees_it(key: str) -> None:
    assert not is_number(key)
    with pytest.raises(InvalidRequest, match="as it is"):
        decode_numbered(encode_cursor(AT, key))


@pytest.mark.parametrize("key", ["", "a b", "a\0", "ü", "x" * 256])
def test_an_id_is_printable_ascii(key: str) -> None:
    assert not is_text(key)
    with pytest.raises(InvalidRequest):
        decode_cursor(encode_cursor(AT, key), is_text)
