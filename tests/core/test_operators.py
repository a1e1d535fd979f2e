"""Roles, and the forms of names and passwords."""

from itertools import product

import pytest

from core.errors import InvalidRequest
from core.operators import PASSWORD_CHARACTERS_MAX, Role, check_name, check_password


def test_a_role_has_the_rights_of_those_before_it() -> None:
    rights = {(role, needed) for role, needed in product(Role, Role) if role.may(needed)}
    assert rights == {
        (Role.VIEWER, Role.VIEWER),
        (Role.OPERATOR, Role.VIEWER),
        (Role.OPERATOR, Role.OPERATOR),
        (Role.ADMIN, Role.VIEWER),
        (Role.ADMIN, Role.OPERATOR),
        (Role.ADMIN, Role.ADMIN),
    }


@pytest.mark.parametrize("name", ["a", "alice", "a.b-c_d", "a1", "a" * 40])
def test_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "1a", "a b", "a" * 41, "ä", "a\n", ".a", "a/b", "key_0123456789ab"])
def test_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="small letters"):
        check_name(name)


@pytest.mark.parametrize(
    "password", ["blue kettles!", "alice in wonderland", "x7" * 3 + "kettle", "茶壶是蓝色的请记住这个密码"]
)
def test_a_password(password: str) -> None:
    assert check_password(password, name="alice") == password


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("elevenchars", "12 to"),
        ("", "12 to"),
        ("k" * (PASSWORD_CHARACTERS_MAX + 1), "12 to"),
        ("aaaaaaaaaaaaaaaa", "too easy"),
        ("abcdabcdabcdabcd", "too easy"),
        ("alicealicealice", "too easy"),
        ("Alice123Alice", "too easy"),
    ],
)
def test_no_password(password: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_password(password, name="alice")
