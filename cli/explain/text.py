"""An explanation in words. Every text goes through the mask first."""

from __future__ import annotations

from collections.abc import Mapping

import click

from channels.kit.signed_message import SignatureCheck
from cli.orders.text import money
from cli.output import instant, print_table, printable
from core.evidence import Evidence, Refunded
from core.order import Payment
from flows.explanation import Explanation
from flows.explanation_view import Mask, signed_string

STRING_CHARACTERS_MAX = 4000
"""On a terminal; the JSON has all of it."""

_SAYS = {
    "paid": "paid",
    "refunded": "paid, and given back",
    "unpaid": "not paid yet",
    "approved": "the buyer has agreed, and the money is not taken yet",
    "lapsed": "the buyer's approval has ended without a payment",
    "disputed": "the channel takes the money back, or may do so",
    "closed": "not paid, and closed at the channel",
    "missing": "the channel knows no such payment",
    "unclear": "nothing was learnt",
    "mismatch": "genuine, and not what was to be paid",
    "rejected": "not taken",
}
_BECAUSE = {
    "forged": "no key of the account has signed these bytes",
    "stale": "the signature is good, and its time is outside the channel's tolerance",
    "unreadable": "it could not be verified, or it is not what the protocol says",
    "not_verifiable": "the key or certificate that verifies it could not be fetched",
}


def print_explanation(
    explanation: Explanation, mask: Mask, payment: Payment | None, headers: Mapping[str, str]
) -> None:
    """Print the verdict, its meaning, and each check with the exact string."""
    click.echo(f"{explanation.verdict}: {_SAYS[explanation.verdict]}" + _why(explanation, mask))
    if explanation.evidence is not None:
        click.echo()
        print_table(("what", "channel says", "expected"), _facts(explanation.evidence, payment), empty="")
    for check in explanation.checks:
        _print_check(check, mask)
    if not explanation.checks:
        unsigned = "" if explanation.evidence is None else ": the channel signs no such answer"
        click.echo(f"\nno signature was checked{unsigned}")
    if not any(check.is_good for check in explanation.checks) and headers:
        click.echo("\nthe headers that were given")
        for name, value in mask.headers(headers).items():
            click.echo(f"    {printable(name)}: {printable(value)}")
    for note in explanation.notes:
        click.echo(f"\n{printable(mask.text(note.text))}")


def _why(explanation: Explanation, mask: Mask) -> str:
    because = _BECAUSE.get(explanation.reason, explanation.reason)
    detail = f" ({explanation.detail})" if explanation.detail else ""
    return printable(mask.text(f"; {because}{detail}")) if because or detail else ""


def _facts(evidence: Evidence, payment: Payment | None) -> list[tuple[str, object, object]]:
    amount = None if evidence.amount is None else money(evidence.amount, evidence.currency or "CNY")
    expected = money(payment.amount, payment.currency) if payment is not None and payment.currency else None
    rows: list[tuple[str, object, object]] = [
        ("account", evidence.channel_account, None if payment is None else payment.channel_account),
        ("out_trade_no", evidence.out_trade_no, None if payment is None else payment.out_trade_no),
        ("amount", amount, expected),
        ("channel's number", evidence.channel_transaction_id, None),
        ("at", None if evidence.at is None else instant(evidence.at), None),
    ]
    if isinstance(evidence, Refunded):
        refunded = evidence.refunded_amount
        rows.append(("refunded", "unknown" if refunded is None else money(refunded, evidence.currency), None))
    return rows


def _print_check(check: SignatureCheck, mask: Mask) -> None:
    result = "good" if check.is_good else "WRONG"
    click.echo(f"\n{check.message}: {check.algorithm} with {printable(mask.text(check.key))}: {result}")
    text, encoding = signed_string(check, mask)
    click.echo(f"  over these {len(check.string)} bytes" + (", in base64" if encoding == "base64" else ""))
    shown = text[:STRING_CHARACTERS_MAX]
    *lines, last = shown.replace("\r", "\\r").split("\n")
    for line in (*(f"{line}\\n" for line in lines), last):
        click.echo(f"    {printable(line)}")
    if len(shown) < len(text):
        click.echo("    … (--json shows all of it)")
