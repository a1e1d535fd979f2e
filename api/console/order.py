"""One order: its money, what happens next, and its story with the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any, TypeVar

from msgspec.structs import replace

from api.console.money import order_acts
from api.console.render import fragment, note_plainly, render, word_plainly
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply, Response
from api.story.texts import tell, tell_next, who
from core.dispute import is_withheld, unsettled
from core.errors import NotFound
from core.next_steps import Step, next_steps
from core.order import ORDER_NO, OrderState, PaymentStatus, public_status
from core.order_facts import OrderFacts
from core.story import Entry, story_of
from storage.postgres.order_facts import find_facts

EVIDENCE_LINES_MAX = 60
"""Lines of one evidence on the page; a channel may name many refunds."""


async def show(context: Context, visit: Visit) -> Reply:
    facts = await _facts(visit)
    order = facts.state.order
    return render(
        visit,
        "order/one.html",
        title=visit.language.texts["order.title"].format(order_no=order.order_no),
        tag=_tag(facts),
        acts=order_acts(facts.state),
        page_link=_page_link(context, order.page_token) if visit.sight.is_whole else "",
        **_values(facts, visit),
    )


async def show_live(_context: Context, visit: Visit) -> Reply:
    """The parts of the page that change, for its script; 304 while nothing has."""
    facts = await _facts(visit)
    tag = _tag(facts)
    if visit.request.headers.get("if-none-match", "") == tag:
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=(("etag", tag), ("cache-control", "no-store")))
    shown = fragment(visit, "order/parts.html", **_values(facts, visit))
    return replace(shown, headers=(*shown.headers, ("etag", tag)))


def _page_link(context: Context, token: str) -> str:
    return f"{context.resources.settings.public_url.rstrip('/')}/o/{token}"


async def _facts(visit: Visit) -> OrderFacts:
    order_no = visit.params["order_no"]
    facts = await find_facts(visit.db, order_no) if ORDER_NO.fullmatch(order_no) else None
    if facts is None:
        raise NotFound("no such order")
    return facts


def _tag(facts: OrderFacts) -> str:
    """An entity tag of all that is shown but for spans of time, which go on by themselves."""
    state = replace(facts.state, now=facts.state.order.created_at, open_cases=frozenset())
    shown = (replace(facts, state=state), [step.text for step in next_steps(facts)])
    return f'"{state.order.version}-{sha256(repr(shown).encode()).hexdigest()[:16]}"'


def _values(facts: OrderFacts, visit: Visit) -> dict[str, Any]:
    """The names of the templates."""
    state, language, sight = facts.state, visit.lang, visit.sight
    phrases = {case.detail: case.phrase for case in facts.cases}
    sentences = {detail: word_plainly(visit, detail, phrase) for detail, phrase in phrases.items()}
    return {
        "facts": facts,
        "phrases": phrases,
        "state": state,
        "order": state.order,
        "page_status": public_status(state.order, state.payments, state.disputes),
        "sums": _sums(state),
        "steps": [
            (step, sight.text(tell_next(_in_words(step, visit, sentences), language))) for step in next_steps(facts)
        ],
        "entries": [
            (
                entry,
                sight.text(tell(_in_words(entry, visit, sentences), language)),
                who(entry, language),
                details_of(entry),
            )
            for entry in story_of(facts)
        ],
        "withheld": {
            dispute.dispute_id
            for dispute in state.disputes
            if dispute.takes_money and dispute in unsettled(state.disputes, dispute.key)
        },
    }


_T = TypeVar("_T", Entry, Step)


_WORDS = {
    "reason": ("reason.", "callbacks.verdict_"),
    "says": ("callbacks.kind_", "callbacks.verdict_"),
    "outcome": ("outcome.",),
    "kind": ("dispute_kind.",),
}
"""Beginnings of the keys of texts of a value's words, by the name of the value."""


_NOTES = frozenset({"amount", "note", "error", "status", "outcome", "detail"})
"""Values that may be a sentence of ours, or a code."""


def _in_words(row: _T, visit: Visit, sentences: Mapping[str, str]) -> _T:
    """The entry or step with words of ours, with money, and with the detail of a case, in the reader's language."""
    texts = visit.language.texts
    changed = {name: note_plainly(visit, row.values[name]) for name in _NOTES & row.values.keys()}
    keys = {name: [f"{each}{row.values.get(name)}" for each in prefixes] for name, prefixes in _WORDS.items()}
    changed |= {name: texts[key] for name, several in keys.items() for key in reversed(several) if key in texts}
    changed |= {name: sentences[text] for name in ("detail", "note") if (text := row.values.get(name, "")) in sentences}
    return replace(row, values={**row.values, **changed}) if changed else row


def _sums(state: OrderState) -> list[tuple[str, int | None, str]]:
    """Key of its text, sum in minor units (None: not known) and currency, of the money that there was."""
    order = state.order
    paid = [payment for payment in state.payments if payment.status is PaymentStatus.PAID]
    if not paid:
        return [("due", order.amount, order.currency)]
    refunded = [payment.refunded_amount for payment in paid]
    left = [payment.remaining_amount for payment in paid]
    sums: list[tuple[str, int | None, str]] = [
        ("due", order.amount, order.currency),
        ("received", sum(payment.amount for payment in paid), paid[0].currency),
    ]
    if refunded != [0] * len(paid):
        sums.append(("refunded", None if None in refunded else sum(filter(None, refunded)), paid[0].currency))
        sums.append(("left", None if None in left else sum(filter(None, left)), paid[0].currency))
    withheld = [payment for payment in paid if is_withheld(state.disputes, payment.key)]
    if withheld:
        sums.append(("withheld", sum(payment.amount for payment in withheld), withheld[0].currency))
    return sums


def details_of(entry: Entry) -> list[tuple[str, str]]:
    """Evidence behind an entry, as names and values; a channel's texts are in it."""
    lines = list(_flat("", entry.evidence)) if entry.evidence is not None else []
    return lines[:EVIDENCE_LINES_MAX]


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    match value:
        case Mapping():
            for key, inner in value.items():
                yield from _flat(f"{name}.{key}" if name else str(key), inner)
        case list():
            yield name, ", ".join(map(str, value))
        case None:
            return
        case _:
            yield name, str(value)
