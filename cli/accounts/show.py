"""The text of `nodrop accounts show`: facts of one account, and never a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.output import cell, print_table, printable, span

if TYPE_CHECKING:
    from flows.account_facts import AccountFacts


def print_account(facts: AccountFacts) -> None:
    """Settings, credentials by name, certificates, and what is going on."""
    breakers = ", ".join(facts.open_breakers) or "closed"
    reconciled = facts.last_reconciled
    lines = [
        ("channel", facts.channel),
        ("state", "enabled" if facts.enabled else "disabled"),
        ("callbacks at", facts.callback_url),
        ("calls now", f"{facts.calls_in_use} of {facts.rate_per_s} a second"),
        ("breakers", breakers if not facts.open_breakers else f"OPEN: {breakers}"),
        ("last callback", facts.last_callback_at),
        (
            "reconciled",
            None if reconciled is None else f"{span(-reconciled.age_s)}, {reconciled.differences} differences",
        ),
        ("added", facts.created_at),
        ("changed", facts.updated_at),
    ]
    click.echo(printable(f"account {facts.name}"))
    for name, value in lines:
        click.echo(f"  {name:<14} {cell(value)}")
    click.echo("\nsettings:")
    for name, setting in facts.settings.items():
        text = ", ".join(map(str, setting)) if isinstance(setting, list) else setting
        click.echo(printable(f"  {name:<16} {cell(text)}"))
    click.echo("\ncredentials:")
    for name, shown in facts.credentials.items():
        click.echo(printable(f"  {name:<24} {shown}"))
    if facts.certificates:
        click.echo()
        rows = [(each.what, each.ends_at, each.mark) for each in facts.certificates]
        print_table(("certificate", "ends", "mark"), rows, empty="")
