"""Pages out of templates: everything is escaped, and a name that a template does not get ends in an error.

Texts come by key in the reader's language. A page has no inline script and no inline style, so the policy allows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context as Names
from markupsafe import Markup

from api.console import assets, navigation, texts
from api.console.catalogue import find_translation
from api.console.visit import Notice, Reader, SeeOther, Visit
from api.http.response import HTML, Response
from api.pages.money import shown_amount
from api.pages.parts import utc_text
from api.pages.texts import DEFAULT
from core.acts import Line, Sum
from core.csv_cells import csv_line
from core.errors import NodropError, NotPossible
from core.notes import phrase_of_note
from core.sentences import Amount, Items, Moment, Phrase, Sentence, Span, Term, Value, decode_phrase, phrase_of
from core.sight import Sight

FOLDER = Path(__file__).parent / "templates"

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = (
    ("content-security-policy", CSP),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
)
CSV_TYPE = "text/csv; charset=utf-8"


def render(
    visit: Reader, template: str, *, status: int = 200, headers: Iterable[tuple[str, str]] = (), **values: Any
) -> Response:
    """The page. `values` are the names of the template, beside `visit`, `t`, `asset`, `nav` and `notice`."""
    return _html(visit, template, status, headers, values)


def fragment(visit: Reader, template: str, **values: Any) -> Response:
    """A part of a page, for a script that puts it into one."""
    return _html(visit, template, 200, (), values)


def csv_reply(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Response:
    """A file for a spreadsheet, called `NAME.csv`. No text in it is a formula."""
    return csv_file(name, header, csv_lines(rows))


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Lines of such a file. A long one is made page by page, so that no request waits for all of it."""
    return "".join([csv_line([_cell(value) for value in row]) for row in rows]).encode()


def csv_file(name: str, header: Sequence[str], *lines: bytes) -> Response:
    """The file of these lines, below its header."""
    disposition = f'attachment; filename="{name}.csv"'
    return Response(
        body=b"".join((b"\xef\xbb\xbf", csv_lines([header]), *lines)),  # the mark: so that Excel takes it for UTF-8
        content_type=CSV_TYPE,
        headers=(*PAGE_HEADERS, ("content-disposition", disposition)),
    )


def see_other(path: str, notice: str = "", **values: str | int) -> SeeOther:
    """303 to a page of the console, which says once the text `notice` with these words in it."""
    kept = Notice(key=notice, values=values) if notice else None
    return SeeOther(status=303, headers=(("location", path),), notice=kept)


def show_fault(
    reader: Reader,
    slug: str,
    error: NodropError,
    request_id: str,
    status: int,
    headers: Iterable[tuple[str, str]] = (),
) -> Response:
    """The page of a fault, by the last part of its texts' key, with the detail of `error`, if it has one."""
    key = f"error.{slug}" if f"error.{slug}" in reader.language.texts else "error.other"
    detail = _detail_of(reader, error)
    return render(
        reader, "error.html", status=status, headers=headers, key=key, detail=detail, error_id=request_id, code=status
    )


def _detail_of(reader: Reader, error: NodropError) -> Markup:
    if isinstance(error, NotPossible):
        return _sentence(reader, error.line)
    return _worded(reader, error.detail, phrase_of(error.sentence)) if error.detail else Markup()


def show_onward(target: str) -> Response:
    """A page that goes on to an address of ours at once."""
    onward = f'<meta http-equiv="refresh" content="0; url={escape(target)}">'
    page = f'<!doctype html>\n<meta charset="utf-8">\n<title>…</title>\n{onward}\n'
    return Response(body=page.encode(), content_type=HTML, headers=PAGE_HEADERS)


def _html(
    reader: Reader, template: str, status: int, headers: Iterable[tuple[str, str]], values: Mapping[str, Any]
) -> Response:
    body = _environment().get_template(template).render(visit=reader, **values)
    return Response(status=status, body=body.encode(), content_type=HTML, headers=(*PAGE_HEADERS, *headers))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=-1,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "asset": assets.url,
        "code": code,
        "languages": {name: language.texts["language"] for name, language in texts.LANGUAGES.items()},
        "crumbs": navigation.crumbs,
        "nav": navigation.nav,
        "notice": notice,
        "sentence": sentence,
        "t": text,
        "title_count": navigation.title_count,
        "worded": worded,
    }
    environment.filters |= {
        "ago": ago,
        "duration": duration,
        "exact": _exact,
        "instant": instant,
        "money": money,
        "noted": noted,
        "number": number,
        "seen": seen,
        "share": share,
        "until": until,
    }
    return environment


# -- texts -------------------------------------------------------------------------------------------------------------


def _reader(names: Names) -> Reader:
    reader: Reader = names["visit"]
    return reader


@pass_context
def text(names: Names, key: str, **values: Any) -> Markup:
    """The text of a key, with values in it. What is not markup is escaped, and kept apart from the text around it."""
    return _say(_reader(names), key, values)


def _say(reader: Reader, key: str, values: Mapping[str, Any]) -> Markup:
    words = {name: _word(reader, value) for name, value in values.items()}
    return _escaped(reader.language.texts[key]).format(**words)


def _escaped(text: str) -> Markup:
    """A text in which only `&`, `<` and `>` are special: it stands between tags."""
    return Markup(escape(text, quote=False))  # noqa: S704 - escaped in the same breath


def _word(reader: Reader, value: object) -> Markup:
    match value:
        case Markup():
            return value
        case Sum():
            return Markup("<bdi>{}</bdi>").format(_money(reader, value.amount, value.currency))
        case datetime():
            return _time(reader, value)
        case int():
            return Markup("{}").format(_number(value))
        case Sentence():
            return _worded(reader, str(value), value.phrase)
        case Amount() | Term() | Span() | Moment() | Items() | Phrase():
            return _value(reader, value)
    return Markup("<bdi>{}</bdi>").format(value)


def _value(reader: Reader, value: Amount | Term | Span | Moment | Items | Phrase) -> Markup:
    """A value of a sentence of ours, as the reader writes it."""
    match value:
        case Amount():
            return Markup("<bdi>{}</bdi>").format(_money(reader, value.minor, value.currency))
        case Span():
            return _escaped(_duration(reader, value.seconds))
        case Moment():
            return _time(reader, value.at)
        case Items():
            return _escaped(reader.language.texts["base.comma"]).join(_word(reader, each) for each in value.items)
        case Phrase():
            return _worded(reader, str(value), value)
    text = reader.language.texts.get(f"{value.prefix}{value.word}")
    return Markup("<bdi>{}</bdi>").format(value.word) if text is None else _escaped(text)


@pass_context
def code(names: Names, prefix: str, written: str, *, is_ours: bool = True) -> Markup:
    """The text of a stored code. One that only another release knows stands as it is, and says so. `is_ours` False: it
    may be the name of a fault too, which has no text.
    """
    reader = _reader(names)
    if f"{prefix}{written}" in reader.language.texts:
        return _escaped(reader.language.texts[f"{prefix}{written}"])
    raw = Markup("<code>{}</code>").format(written)
    hint = Markup(' <span class="hint">{}</span>').format(_say(reader, "base.unknown_code", {}))
    return raw + hint if is_ours else raw


@pass_context
def worded(names: Names, text: str, stored: str | None = None, *, is_ours: bool = True) -> Markup:
    """An English text of ours in the reader's language. `stored`: its phrase, as it stands beside it.

    `is_ours` False: a person or a channel may have written it. Nothing: "–".
    """
    reader = _reader(names)
    phrase = _as_seen(decode_phrase(stored) or phrase_of(text), reader.sight)
    return _worded(reader, reader.sight.text(text), phrase, is_ours=is_ours) if text else Markup("–")


def _as_seen(phrase: Phrase, sight: Sight) -> Phrase:
    """The phrase with what this reader may see of its texts."""
    return phrase if sight.is_whole else Phrase(phrase.template, {n: _seen(v, sight) for n, v in phrase.values.items()})


def _seen(value: Value, sight: Sight) -> Value:
    match value:
        case str():
            return sight.text(value)
        case Items():
            return Items(tuple(_seen(each, sight) for each in value.items))
        case Phrase():
            return _as_seen(value, sight)
    return value


_BARE = Markup("<bdi>{}</bdi>")
_ENGLISH = Markup('<bdi lang="en">{}</bdi>')


def word_plainly(reader: Reader, text: str, stored: str | None) -> str:
    """The same as plain text, to stand in another sentence."""
    return _worded(reader, text, decode_phrase(stored) or phrase_of(text), is_ours=False).striptags()


def note_plainly(reader: Reader, text: str) -> str:
    """A note of an event, the error of a refund, or a sentence that remembers its words, as plain text."""
    phrase = text.phrase if isinstance(text, Sentence) else phrase_of_note(text)
    return str(text) if phrase is None else _worded(reader, text, phrase, is_ours=False).striptags()


@pass_context
def noted(names: Names, text: str | None) -> str:
    """The same of a text that a stranger may have written, as this reader may see it. Nothing: "–"."""
    reader = _reader(names)
    return note_plainly(reader, reader.sight.text(text)) if text else "–"


def _worded(reader: Reader, text: str, phrase: Phrase, *, is_ours: bool = True) -> Markup:
    """Anything without a translation, as a sentence of another release, is English and marked so."""
    translated = None if reader.lang == DEFAULT else find_translation(reader.lang, phrase.template)
    if translated is None:
        is_foreign = is_ours and reader.lang != DEFAULT
        return _ENGLISH.format(text) if is_foreign else _BARE.format(text)
    return _escaped(translated).format(**{name: _word(reader, value) for name, value in phrase.values.items()})


@pass_context
def sentence(names: Names, line: Line) -> Markup:
    """A sentence about an act."""
    return _sentence(_reader(names), line)


def _sentence(reader: Reader, line: Line) -> Markup:
    key = f"act.{line.key}"
    return _say(reader, key, line.figures) if key in reader.language.texts else _escaped(line.text)


@pass_context
def notice(names: Names) -> Markup | None:
    """The sentence of the notice, once."""
    visit = _reader(names)
    if not isinstance(visit, Visit) or visit.session.notice is None:
        return None
    visit.has_shown_notice = True
    notice = msgspec.json.decode(visit.session.notice, type=Notice)
    if notice.key not in visit.language.texts:  # of the release before
        return None
    return _say(visit, notice.key, notice.values)


# -- values ------------------------------------------------------------------------------------------------------------


@pass_context
def money(names: Names, amount: int, currency: str) -> str:
    """`88|money("CNY")`: an amount in minor units, as the reader writes it."""
    return _money(_reader(names), amount, currency)


def _money(reader: Reader, amount: int, currency: str) -> str:
    shown = shown_amount(abs(amount), currency, texts.money_language(reader.lang))
    return f"\u2212{shown}" if amount < 0 else shown


@pass_context
def seen(names: Names, text: str | None) -> str:
    """A text of a stranger, the merchant or a person, as this reader may see it. Nothing: "–"."""
    return _reader(names).sight.text(text) if text else "–"


def number(value: float) -> str:
    """1234567 → "1,234,567"."""
    return _number(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def share(value: float | None) -> str:
    """0.9987 → "99.87 %"; never 100 % while something is missing. None: "–"."""
    if value is None:
        return "–"
    percent = int(value * 10_000) / 100
    return f"{percent:.2f}".rstrip("0").rstrip(".") + "\u00a0%"


@pass_context
def instant(names: Names, at: datetime | None) -> Markup:
    """An instant in UTC, which a script turns into the reader's zone. None: "–"."""
    return Markup("–") if at is None else _time(_reader(names), at)


def _time(reader: Reader, at: datetime) -> Markup:
    utc = at.astimezone(UTC)
    shown = f"{utc:%H:%M:%S}" if utc.date() == reader.now.astimezone(UTC).date() else f"{utc:%Y-%m-%d %H:%M:%S}"
    return Markup('<time datetime="{}">{} UTC</time>').format(_exact(utc), shown)


def _exact(at: datetime) -> str:
    return (
        utc_text(at) if not at.microsecond else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
    )


@pass_context
def ago(names: Names, at: datetime | None) -> Markup:
    """Return "3 min 20 s ago"; the instant itself is its title. None: "–"."""
    return _relative(_reader(names), at, "ago", "in")


@pass_context
def until(names: Names, at: datetime | None) -> Markup:
    """Return "in 3 min 20 s", or "now" when that is over. None: "–"."""
    return _relative(_reader(names), at, "now", "in")


_AGO = Markup('<time data-ago datetime="{}" title="{}">{}</time>')
_UNTIL = Markup('<time data-until datetime="{}" title="{}">{}</time>')


def _relative(reader: Reader, at: datetime | None, past: str, future: str) -> Markup:
    if at is None:
        return Markup("–")
    seconds = (at - reader.now).total_seconds()
    key, span = (future, seconds) if seconds > 0 else (past, -seconds)
    words = "" if key == "now" else _duration(reader, span)
    duration = reader.language.texts[f"time.{key}"].format(span=words)
    exact = _exact(at)
    title = f"{exact[:19].replace('T', ' ')} UTC"
    return (_AGO if past == "ago" else _UNTIL).format(exact, title, duration)


@pass_context
def duration(names: Names, seconds: float | timedelta | None) -> str:
    """200 → "3 min 20 s", 0.0421 → "42 ms". None: "–"."""
    if seconds is None:
        return "–"
    return _duration(_reader(names), seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)


def _duration(reader: Reader, seconds: float) -> str:
    """The two largest units, of which the second may be nothing."""
    words = reader.language.texts
    if 0 < seconds < 1:
        return words["time.ms"].format(n=max(1, round(seconds * 1000)))
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(words[f"time.{unit}"].format(n=count))
        elif parts:
            break
    return " ".join(parts[:2])


def _cell(value: object) -> object:
    return utc_text(value) if isinstance(value, datetime) else value
