"""Languages of the page, one file each, and amounts in the reader's way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api.pages import texts
from api.pages.money import shown_amount
from api.pages.parts import fill
from api.pages.texts import FOLDER, LANGUAGES, read_languages
from core.errors import ConfigurationError
from core.money import CURRENCIES
from core.order import PublicStatus
from core.phase import Phase
from storage.sealing import new_master_key
from tests.servers import ROOT

ENGLISH = (FOLDER / "en.toml").read_text()


def folder_with(folder: Path, name: str, text: str) -> Path:
    (folder / "en.toml").write_text(ENGLISH)
    (folder / name).write_text(text)
    return folder


def test_a_third_language_is_one_file(tmp_path: Path) -> None:
    spanish = ENGLISH.replace('money_group = ","', 'money_group = "."').replace(
        'money_decimal = "."', 'money_decimal = ","'
    )
    spanish = spanish.replace("{sign}{number}", "{number}\u00a0{sign}").replace('paid = "Paid"', 'paid = "Pagado"')
    language = read_languages(folder_with(tmp_path, "es.toml", spanish))["es"]
    assert language.texts["paid"] == "Pagado"
    assert shown_amount(123456789, "EUR", language) == "1.234.567,89\u00a0€"
    assert shown_amount(8888, "CHF", language) == "88,88\u00a0CHF"


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ('paid = "Paid"\n', "", "es.toml: paid is missing"),
        ('paid = "Paid"\n', 'paid = "Paid"\npayed = "x"\n', "es.toml: payed is unknown"),
        ("Check again in {s} s", "Check again", "es.toml: check_in needs a text with {s}"),
        ("Check again in {s} s", "In {s} {seconds}", "es.toml: check_in needs a text with {s}"),
        ("Check again in {s} s", "In {s.__class__}", "es.toml: check_in needs a text with {s}"),
        ("Check again in {s} s", "In {s:>9999999}", "es.toml: check_in needs a text with {s}"),
        ("Check again in {s} s", "In {s!r}", "es.toml: check_in needs a text with {s}"),
        ("Check again in {s} s", "In {s", "es.toml: check_in needs a text with {s}"),
        ("Check again in {s} s", "In {s} }", "es.toml: check_in needs a text with {s}"),
        ('paid = "Paid"', 'paid = ""', "es.toml: paid needs a text with no braces"),
        ('paid = "Paid"', "paid = 7", "es.toml: Expected `str`, got `int`"),
        ('paid = "Paid"', "paid = ", "es.toml: Invalid value"),
        ('EUR = "€"', 'EUR = ""', "es.toml: the sign of EUR is empty"),
        ('EUR = "€"', 'EUR = "$"', "es.toml: two currencies have the sign $"),
        ('direction = "ltr"', 'direction = "up"', "es.toml: direction is ltr or rtl"),
    ],
)  # fmt: skip
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, before: str, after: str, fault: str) -> None:
    assert before in ENGLISH
    with pytest.raises(ConfigurationError) as caught:
        read_languages(folder_with(tmp_path, "es.toml", ENGLISH.replace(before, after)))
    assert caught.value.detail.startswith(f"languages: {fault}")


@pytest.mark.parametrize("name", ["español.toml", "EN2.toml", "english.toml"])
def test_a_file_is_named_by_the_code_of_its_language(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="two or three letters"):
        read_languages(folder_with(tmp_path, name, ENGLISH))


def test_without_english_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "zh.toml").write_text(ENGLISH)
    with pytest.raises(ConfigurationError, match=r"en\.toml is missing"):
        read_languages(tmp_path)


@pytest.mark.servers
def test_a_web_process_does_not_start_with_half_a_language(tmp_path: Path) -> None:
    """A checkout to which somebody has added the file."""
    shutil.copytree(ROOT / "api", tmp_path / "api")
    for room in ("channels", "core", "flows", "runtime", "storage"):
        (tmp_path / room).symlink_to(ROOT / room)
    half = ENGLISH.replace('paid = "Paid"\n', "")
    (tmp_path / "api" / "pages" / "languages" / "es.toml").write_text(half)
    env = {
        "DATABASE_URL": "postgres://u:p@127.0.0.1:9/x",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "PUBLIC_URL": "http://127.0.0.1:1",
        "NOTIFY_SECRETS": "whsec_" + "A" * 44,
        "NODROP_MASTER_KEYS": new_master_key("first"),
    }
    command = [sys.executable, "-m", "api"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (2, "api: languages: es.toml: paid is missing\n")


@pytest.mark.parametrize("content", [b"\xff", b"paid = ", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "en.toml").write_text(ENGLISH)
    broken = tmp_path / "es.toml"
    broken.mkdir() if content is None else broken.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_languages(tmp_path)
    assert caught.value.detail.startswith("languages: es.toml: ")


def test_every_phase_has_its_words_in_every_language() -> None:
    for language in LANGUAGES.values():
        for phase in {*Phase, *PublicStatus, "missing"}:
            assert language.texts[phase]
            assert language.texts[f"{phase}_note"]


@pytest.mark.parametrize(
    ("amount", "currency", "english", "chinese"),
    [
        (8888, "CNY", "¥88.88", "¥88.88"),
        (1, "CNY", "¥0.01", "¥0.01"),
        (123456789, "USD", "$1,234,567.89", "US$1,234,567.89"),
        (8888, "JPY", "JP¥8,888", "JP¥8,888"),
        (123_456, "KWD", "KWD\u00a0123.456", "KWD\u00a0123.456"),
        (8888, "EUR", "€88.88", "€88.88"),
        (10**14, "VND", "₫100,000,000,000,000", "₫100,000,000,000,000"),
    ],
)
def test_an_amount_is_written_in_the_readers_way(amount: int, currency: str, english: str, chinese: str) -> None:
    assert shown_amount(amount, currency, LANGUAGES["en"]) == english
    assert shown_amount(amount, currency, LANGUAGES["zh"]) == chinese


def test_no_two_currencies_look_the_same() -> None:
    for language in LANGUAGES.values():
        assert language.signs.keys() <= CURRENCIES
        shown = {shown_amount(8888, currency, language).rstrip("0123456789.,") for currency in CURRENCIES}
        assert len(shown) == len(CURRENCIES)


def test_values_in_a_text_are_isolated_text() -> None:
    assert fill("<{shop}>", shop="a<b>{c}") == "&lt;<bdi>a&lt;b&gt;{c}</bdi>&gt;"


def test_the_texts_of_the_script_are_those_of_the_files() -> None:
    assert {name: dict(language.texts) for name, language in LANGUAGES.items()} == {
        name: dict(of_language) for name, of_language in texts.TEXTS.items()
    }
