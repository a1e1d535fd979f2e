"""Secrets at rest: only a holder of the key opens them, only where they belong, and keys can be changed."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigurationError
from storage.sealing import KEY_BYTES, Sealer, new_master_key

OLD, NEW = new_master_key("old"), new_master_key("new")
SEALER = Sealer.from_setting(OLD)
SECRET = b"a secret of an account"


@given(st.binary(max_size=2000), st.text(max_size=40))
def test_what_was_sealed_opens_where_it_belongs(plain: bytes, belongs_to: str) -> None:
    assert SEALER.open(SEALER.seal(plain, belongs_to=belongs_to), belongs_to=belongs_to) == plain


def test_a_sealed_value_shows_nothing_and_is_never_the_same() -> None:
    one, two = (SEALER.seal(SECRET, belongs_to="account a") for _ in range(2))
    assert one != two
    assert SECRET not in one


def test_a_value_moved_to_another_row_does_not_open() -> None:
    sealed = SEALER.seal(SECRET, belongs_to="account a")
    with pytest.raises(ConfigurationError, match=r"^what was sealed for account b does not open: changed or moved$"):
        SEALER.open(sealed, belongs_to="account b")


def test_a_changed_value_does_not_open() -> None:
    """Whichever bit it is: of the key's name, the nonce, the text or its tag."""
    sealed = SEALER.seal(SECRET, belongs_to="account a")
    for n in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[n // 8] ^= 1 << n % 8
        with pytest.raises(ConfigurationError):
            SEALER.open(bytes(changed), belongs_to="account a")


def test_a_value_cut_short_does_not_open() -> None:
    sealed = SEALER.seal(SECRET, belongs_to="account a")
    for length in range(len(sealed)):
        with pytest.raises(ConfigurationError):
            SEALER.open(sealed[:length], belongs_to="account a")


def test_keys_are_changed_without_stopping() -> None:
    """The new key in front seals, the old one still opens; when all is sealed anew it can go."""
    by_old = SEALER.seal(SECRET, belongs_to="account a")
    both = Sealer.from_setting(f"{NEW},{OLD}")
    assert both.open(by_old, belongs_to="account a") == SECRET
    by_new = both.seal(SECRET, belongs_to="account a")
    assert Sealer.from_setting(NEW).open(by_new, belongs_to="account a") == SECRET
    assert Sealer.from_setting(f"{OLD},{NEW}").open(by_new, belongs_to="account a") == SECRET
    with pytest.raises(ConfigurationError, match=r"^NODROP_MASTER_KEYS lacks the key that sealed account a$"):
        Sealer.from_setting(NEW).open(by_old, belongs_to="account a")


def test_another_key_of_the_same_name_does_not_open() -> None:
    by_old = SEALER.seal(SECRET, belongs_to="account a")
    with pytest.raises(ConfigurationError, match=r"does not open"):
        Sealer.from_setting(new_master_key("old")).open(by_old, belongs_to="account a")


KEY = b64encode(bytes(KEY_BYTES)).decode()


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("", "is empty: set it to the output of"),
        (" , ,", "is empty: set it to the output of"),
        (KEY, ": key 1 has no id; write id:base64"),
        (KEY[:24], ": key 1 has no id; write id:base64"),
        (f":{KEY}", ": key 1 has no id"),
        (f"a b:{KEY}", ": key 1 has no id"),
        (f"{'a' * 33}:{KEY}", ": key 1 has no id"),
        (f"ü:{KEY}", ": key 1 has no id"),
        (f"a:{KEY},{KEY}", ": key 2 has no id"),
        ("a:???", ": key a is not base64"),
        ("a:ü", ": key a is not base64"),
        ("a:", ": key a has 0 bytes instead of 32"),
        (f"a:{b64encode(bytes(16)).decode()}", ": key a has 16 bytes instead of 32"),
        (f"a:{b64encode(bytes(33)).decode()}", ": key a has 33 bytes instead of 32"),
        (f"a:{KEY},b:{KEY},a:{KEY}", ": two keys are called a"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_at_the_start(setting: str, complaint: str) -> None:
    """The error says which, and holds nothing of a key."""
    with pytest.raises(ConfigurationError) as refused:
        Sealer.from_setting(setting)
    assert refused.value.detail.startswith(f"NODROP_MASTER_KEYS{complaint}" if complaint[0] == ":" else "NODROP_MASTER")
    assert complaint in refused.value.detail
    assert KEY[:12] not in refused.value.detail


def test_space_between_keys_is_no_part_of_them() -> None:
    sealed = SEALER.seal(SECRET, belongs_to="account a")
    assert Sealer.from_setting(f" {NEW} , {OLD} ,").open(sealed, belongs_to="account a") == SECRET


def test_every_new_key_is_another() -> None:
    assert len({new_master_key("k") for _ in range(100)}) == 100
