"""`nodrop …`, which is `python -m cli …`: every command by name, imported when it is called and not before.

So `nodrop --help` takes no longer than Python and click do, and a command costs only what it uses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from cli.environment import stop_for
from cli.output import color_option
from cli.version import nodrop_version


class Lazy(NamedTuple):
    """The place of a command, `module:attribute`, and the line about it in the list of commands."""

    where: str
    help: str


COMMANDS: Mapping[str, Lazy] = MappingProxyType(
    {
        "demo": Lazy("demo.command:demo", "Lose callbacks on purpose and watch every order become paid."),
        "up": Lazy("demo.up:up", "Run the whole system on this machine, with a shop to click through."),
        "migrate": Lazy("cli.migrations:migrate", "Bring the database up to date."),
        "config": Lazy("cli.config.commands:config", "Check and show the configuration."),
        "keys": Lazy("cli.keys:keys", "API keys, master keys and notification secrets."),
        "operators": Lazy("cli.operators:operators", "People who may use the console."),
        "secrets": Lazy("cli.notify_secrets:notify_secrets", "Notification secrets of single hosts."),
        "accounts": Lazy("cli.accounts.commands:accounts", "Accounts at payment channels."),
        "explain": Lazy("cli.explain.commands:explain", "Show what a callback or an answer proves, check by check."),
        "orders": Lazy("cli.orders.commands:orders", "Look at orders; find one, ask about one, end one."),
        "lookup": Lazy("cli.lookup:lookup", "Ask a channel about a number that nodrop does not know."),
        "approvals": Lazy("cli.approvals:approvals", "Refunds that wait for a second operator."),
        "callbacks": Lazy("cli.callbacks:callbacks", "Callbacks that came, stored or refused, and what each proves."),
        "top": Lazy("cli.top.command:top", "Watch live what happens: payments, repairs, accounts, endpoints."),
        "cases": Lazy("cli.cases:cases", "Questions that a person has to answer."),
        "days": Lazy("cli.days:days", "Days of an account: money, differences, sign-off."),
        "disputes": Lazy("cli.disputes:disputes", "What channels take back or may take back."),
        "reconcile": Lazy("cli.reconcile:reconcile", "Compare a channel's statement with our payments, now."),
        "reconciliations": Lazy("cli.reconcile:reconciliations", "Runs of the reconciliation, with what they found."),
        "alerts": Lazy("cli.alerts:alerts", "Conditions that a person must hear of; test how."),
        "audit": Lazy("cli.audit:audit", "What people did."),
        "notifications": Lazy(
            "cli.notifications:notifications", "Messages to the merchant's order service, with every attempt."
        ),
        "endpoints": Lazy("cli.endpoints:endpoints", "Addresses that notifications are for; pause one, and resume it."),
        "dead-letters": Lazy("cli.dead_letters:dead_letters", "Notifications that the merchant never received."),
    }
)


class Nodrop(click.Group):
    """The commands of `COMMANDS`. Expected faults end in one line and an exit code, bugs in their trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            if (close := get_close_matches(cmd_name, COMMANDS, 1)) and not ctx.resilient_parsing:
                ctx.fail(f"No such command '{cmd_name}'. Did you mean '{close[0]}'?")
            return None
        module, _, attribute = COMMANDS[cmd_name].where.partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as missing:
            if not module.startswith("demo."):
                raise
            raise click.ClickException(
                f"`nodrop {cmd_name}` needs {missing.name}, which a deployment has not: use `make {cmd_name}` in the "
                "checkout, or install nodrop with its extra `demo`"
            ) from None
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete from the table: click would import every command for each press of the key."""
        commands = [
            CompletionItem(name, help=lazy.help) for name, lazy in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """Print the lines of the table: click would import every command for its first line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            ctx.color = False
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            stop = stop_for(error)
            if stop is None:
                raise
            raise stop from None


def _show_version(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value and not ctx.resilient_parsing:
        click.echo(f"nodrop {nodrop_version()}")
        ctx.exit()


@click.command(
    cls=Nodrop,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: nodrop orders show 2026-1123-0001",
)
@color_option
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="The version.")
def nodrop() -> None:
    """Keep paid orders from being lost.

    Commands read the environment that the processes read. Exit code 1: it could not be done. 2: what was typed or
    configured is wrong.
    """


def main() -> None:
    """The command, and its exit code."""
    try:
        nodrop(prog_name="nodrop")
    except SystemExit as ended:
        if isinstance(ended.code, int | None) and "pyreqwest" in sys.modules:
            _end_at_once(ended.code or 0)
        raise


def _end_at_once(code: int) -> NoReturn:
    """End the process without the interpreter's own end. The demo's shop calls through pyreqwest, whose threads may
    still release what a call held: after the interpreter had gone that aborted one process in ten.
    """
    with suppress(OSError, ValueError):  # a pipe whose reader has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
