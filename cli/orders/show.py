"""`nodrop orders show`: one order as a person reads it on a terminal, from what is stored alone. One line an event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import click

from api.story.texts import tell, tell_next
from cli.orders.text import headline, money
from cli.output import instant_ms, print_folded, span
from core.dispute import Dispute, unsettled
from core.next_steps import Step, next_steps
from core.order import OrderState, Payment, Refund, public_status
from core.order_facts import CallbackFact, CaseFact, NotificationFact, OrderFacts, RefusedFact
from core.story import Entry, Tone, story_of

_COLOURS: Mapping[Tone, str | None] = {
    Tone.GOOD: "green",
    Tone.WAIT: "yellow",
    Tone.LOOK: "magenta",
    Tone.BAD: "red",
    Tone.CALM: None,
}

Row = tuple[str, str, Tone]
"""The beginning of a line, its text, and the tone of it."""


def print_order(facts: OrderFacts, public_url: str) -> None:
    """Print all that is known of it."""
    click.echo(click.style(headline(facts.state), bold=True))
    was_empty = False
    for title, rows in sections(facts, public_url):
        if rows or not was_empty:  # those without rows stand together
            click.echo()
        was_empty = not rows
        click.echo(click.style(title, bold=True) if rows else f"{title}: none")
        for before, text, tone in rows:
            print_folded(f"  {before}" if before else "    ", text, _COLOURS[tone])


def sections(facts: OrderFacts, public_url: str) -> list[tuple[str, list[Row]]]:
    """All sections, in the order of reading."""
    state, now = facts.state, facts.state.now
    return [
        ("order", list(_order_rows(state, public_url))),
        ("payments", [row for payment in state.payments for row in _payment_rows(payment)]),
        ("what happens next", [_step_row(step, now) for step in next_steps(facts)]),
        ("notifications", [row for one in facts.notifications for row in _notification_rows(one, now)]),
        ("callbacks", [*map(_callback_row, facts.callbacks), *map(_refused_row, facts.refused)]),
        ("refunds", [row for refund in state.refunds for row in _refund_rows(refund)]),
        ("disputes", [row for dispute in state.disputes for row in _dispute_rows(dispute, state)]),
        ("open cases", [_case_row(case) for case in facts.cases if case.resolved_at is None]),
        ("timeline (UTC)", list(_timeline_rows(story_of(facts), is_cut=facts.is_cut))),
    ]


def _order_rows(state: OrderState, public_url: str) -> Iterator[Row]:
    order = state.order
    page_says = public_status(order, state.payments, state.disputes)
    facts: list[tuple[str, object]] = [
        ("status", f"{order.status} (its page says {page_says}), version {order.version}"),
        ("amount", money(order.amount, order.currency)),
        ("world", None if state.live is None else "live: real money" if state.live else "test: no real money"),
        ("subject", order.subject),
        ("placed", order.created_at),
        ("expires", order.expires_at),
        ("paid", order.paid_at),
        ("closed", order.closed_at),
        ("page", f"{public_url.rstrip('/')}/o/{order.page_token}"),
        ("notify_url", order.notify_url),
        ("metadata", ", ".join(f"{key}={value}" for key, value in order.metadata.items())),
    ]
    for name, value in facts:
        if value not in (None, ""):
            yield f"{name:<12}", instant_ms(value) if isinstance(value, datetime) else str(value), Tone.CALM


def _payment_rows(payment: Payment) -> Iterator[Row]:
    notes = ["watched"] * (payment.origin == "watched") + ["unconfirmed"] * (payment.unconfirmed_since is not None)
    status = f"{payment.status} ({', '.join(notes)})" if notes else payment.status
    tone = Tone.GOOD if payment.status == "paid" else Tone.CALM
    yield f"{payment.channel_account}  {payment.out_trade_no}  ", status, tone
    facts = (
        money(payment.amount, payment.currency),
        f"method {payment.method}" if payment.method else "",
        f"payable until {instant_ms(payment.payable_until)}" if payment.status == "open" else "",
        f"paid {instant_ms(payment.paid_at)}" if payment.paid_at is not None else "",
        f"channel's number {payment.channel_transaction_id}" if payment.channel_transaction_id else "",
        f"channel's reference {payment.channel_reference}" if payment.channel_reference else "",
        _refunded(payment),
    )
    yield "", ", ".join(fact for fact in facts if fact), Tone.CALM


def _refunded(payment: Payment) -> str:
    if payment.refunded_amount is None:
        return "refunded: an unknown sum"
    return f"refunded {money(payment.refunded_amount, payment.currency)}" if payment.refunded_amount else ""


def _step_row(step: Step, now: datetime) -> Row:
    when = f"{instant_ms(step.at)}  {span((step.at - now).total_seconds()):<10}  " if step.at is not None else "now  "
    return when, tell_next(step), step.tone


def _notification_rows(row: NotificationFact, now: datetime) -> Iterator[Row]:
    state, tone = _standing(row, now)
    yield f"{row.type}  {row.id}  ", state, tone
    yield "", f"to {row.url}", Tone.CALM
    for attempt in row.attempts:
        latency = "" if attempt.latency_ms is None else f", {attempt.latency_ms} ms"
        answer = f": {attempt.answer}" if attempt.answer else ""
        by_hand = ", by hand" if attempt.is_manual else ""
        tone = Tone.GOOD if attempt.is_delivered else Tone.WAIT
        yield (
            f"  {instant_ms(attempt.at)}  try {attempt.attempt}  ",
            f"{attempt.status}{latency}{by_hand}{answer}",
            tone,
        )


def _standing(row: NotificationFact, now: datetime) -> tuple[str, Tone]:
    last = f", last: {row.last_status}" if row.last_status else ""
    if row.is_dead:
        return f"given up after {row.attempt} tries{last}", Tone.BAD
    if row.is_open and row.is_paused:
        return f"waits, for its endpoint is paused{last}", Tone.LOOK
    if row.is_open:
        due = f"{instant_ms(row.due_at)} ({span((row.due_at - now).total_seconds())})"
        return f"try {row.attempt} at {due}{last}", Tone.WAIT
    if row.delivered_at is not None:
        return f"delivered {instant_ms(row.delivered_at)} on try {row.attempt}{last}", Tone.GOOD
    return "replaced by a newer one", Tone.CALM


def _callback_row(row: CallbackFact) -> Row:
    if row.handled_at is not None:
        state, tone = f"handled: {row.outcome}", Tone.CALM
    elif row.dead_at is not None:
        state, tone = f"given up: {row.outcome}", Tone.BAD
    else:
        due = "" if row.due_at is None else f", due {instant_ms(row.due_at)}"
        state, tone = f"attempt {row.attempt}{due}", Tone.WAIT
    copies = f", came {row.copies} times" if row.copies > 1 else ""
    hint = ", a hint" if row.is_hint else ""
    says = f"{row.key.channel_account}  {row.says}{hint}{copies}; {state}  {row.id}"
    return f"{instant_ms(row.received_at)}  ", says, tone


def _refused_row(row: RefusedFact) -> Row:
    copies = f", came {row.copies} times" if row.copies > 1 else ""
    detail = f" ({row.detail})" if row.detail else ""
    return (
        f"{instant_ms(row.at)}  ",
        f"{row.key.channel_account}  refused: {row.reason}{detail}{copies}  {row.id}",
        Tone.BAD,
    )


def _refund_rows(refund: Refund) -> Iterator[Row]:
    tones = {"succeeded": Tone.GOOD, "failed": Tone.BAD}
    yield f"{refund.refund_no}  ", refund.status.value, tones.get(refund.status.value, Tone.WAIT)
    facts = (
        money(refund.amount, refund.currency),
        f"of {refund.key.channel_account} {refund.key.out_trade_no}",
        f"at the channel {refund.channel_refund_no}" if refund.channel_refund_no else "",
        f"because {refund.reason}",
        f"requested {instant_ms(refund.requested_at)}",
        f"definite {instant_ms(refund.settled_at)}" if refund.settled_at is not None else "",
        f"last error {refund.last_error}" if refund.last_error else "",
    )
    yield "", ", ".join(fact for fact in facts if fact), Tone.CALM


def _dispute_rows(dispute: Dispute, state: OrderState) -> Iterator[Row]:
    is_withheld = dispute in unsettled(state.disputes, dispute.key) and dispute.takes_money
    tone = Tone.CALM if dispute.state.is_final else Tone.LOOK
    yield f"{dispute.channel_account}  {dispute.dispute_id}  ", f"{dispute.kind}, {dispute.state}", tone
    facts = (
        "" if dispute.amount is None or dispute.currency is None else money(dispute.amount, dispute.currency),
        f"respond by {instant_ms(dispute.respond_by)}" if dispute.respond_by is not None else "",
        dispute.reason,
        dispute.outcome,
        f"changed {instant_ms(dispute.changed_at)}",
        "the money is withheld" if is_withheld else "",
    )
    yield "", ", ".join(fact for fact in facts if fact), Tone.CALM


def _case_row(case: CaseFact) -> Row:
    payment = f", {case.key.channel_account} {case.key.out_trade_no}" if case.key is not None else ""
    detail = f": {case.detail}" if case.detail else ""
    return f"{case.id}  {instant_ms(case.opened_at)}  ", f"{case.reason}{detail}{payment}", Tone.LOOK


def _timeline_rows(entries: Iterable[Entry], *, is_cut: bool) -> Iterator[Row]:
    for entry in entries:
        version = "" if entry.version is None else str(entry.version)
        key = f", by key {entry.api_key}" if entry.api_key else ""
        yield f"{instant_ms(entry.at)[5:-1]}  {version:>3}  ", f"{tell(entry)}{key}", entry.tone
    if is_cut:
        yield "", "… there is more than is shown here", Tone.LOOK
