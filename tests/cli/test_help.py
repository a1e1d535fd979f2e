"""The list of commands, the help of each, and the messages about wrong input and stores that are away."""

import re
import subprocess
import sys
from importlib.util import find_spec

import click
import pytest

from cli.__main__ import COMMANDS, nodrop
from tests.cli.conftest import Channel, Place
from tests.cli.nodrop import Nodrop
from tests.servers import ROOT

HEAVY = ("rich", "asyncpg", "redis", "arq", "httpx", "pyreqwest", "structlog", "uvicorn", "cryptography", "msgspec")


def commands() -> dict[str, click.Command]:
    """Every command and group by its words; those whose module is not there are left out."""
    found: dict[str, click.Command] = {"": nodrop}
    for name, lazy in COMMANDS.items():
        if find_spec(lazy.where.partition(":")[0]):
            found |= with_subcommands(name, nodrop.get_command(click.Context(nodrop), name))
    return found


def with_subcommands(name: str, command: click.Command | None) -> dict[str, click.Command]:
    assert command is not None
    found = {name: command}
    if isinstance(command, click.Group):
        for sub, inner in command.commands.items():
            found |= with_subcommands(f"{name} {sub}", inner)
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = commands()[name]
    text = command.get_help(click.Context(command, info_name=f"nodrop {name}".strip()))
    assert command.help or command.callback
    assert re.search(r"Example: .*(nodrop|make) ", text), text


@pytest.mark.parametrize("name", [name for name in commands() if " " in name])
def test_the_list_of_a_group_says_a_whole_sentence_of_each_command(name: str) -> None:
    text = commands()[name].get_short_help_str(limit=78)
    assert not text.endswith("..."), text


def test_every_command_that_prints_data_has_json() -> None:
    silent = {"", "demo", "up", "keys revoke", "operators disable", "operators enable", "operators role"}
    for name, command in commands().items():
        if isinstance(command, click.Group) or name in silent:
            continue
        assert any("--json" in option.opts for option in command.params), name


def test_help_imports_nothing_that_takes_time() -> None:
    argv = (sys.executable, "-X", "importtime", "-m", "cli", "--help")
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ran.stderr.splitlines()}
    assert "click" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["", *COMMANDS])
async def test_every_command_starts_as_a_process_and_prints_its_help(bare: Nodrop, name: str) -> None:
    words = [name] if name else []
    ran = await bare.process(*words, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(" ".join(["Usage: nodrop", *words]) + " ")
    assert "Example: " in ran.out


async def test_a_process_prints_exits_and_reads_as_the_command_does(
    nodrop: Nodrop, place: Place, channel: Channel
) -> None:
    """With a database, a channel, standard input and each exit code."""
    key = await nodrop.process("keys", "create", "shop")
    assert (key.code, key.out.startswith("ndk_"), "shown this once" in key.err) == (0, True, True)
    added = await nodrop.process("accounts", "add", "more", "--from", "-", stdin=channel.toml().encode())
    assert (added.code, "the same merchant as main" in added.err) == (0, True)
    await place("A-1")
    refreshed = await nodrop.process("orders", "refresh", "A-1", "--reason", "x")
    assert (refreshed.code, refreshed.err) == (0, "")
    assert "order A-1: paying" in refreshed.out
    assert (await nodrop.process("orders", "show", "B-1")) == (1, "", "nodrop: there is no order B-1\n")
    assert (await nodrop.process("orders", "list", env={"PORT": "x"})).code == 2


async def test_an_unknown_command_is_a_usage_error(bare: Nodrop) -> None:
    ran = await bare("order")
    assert ran.code == 2
    assert "No such command 'order'. Did you mean 'orders'?" in ran.err
    assert ran.out == ""
    assert "No such command 'nonsense'." in (await bare("nonsense")).err


async def test_a_variable_of_the_demo_is_named_when_it_is_wrong(bare: Nodrop) -> None:
    ran = await bare("demo", env={"SEED": "x"})
    assert (ran.code, "'--seed' (env var: 'SEED'): 'x' is not a valid integer" in ran.err) == (2, True)


async def test_a_missing_variable_is_named_with_what_to_set(bare: Nodrop) -> None:
    ran = await bare("orders", "list")
    assert ran.code == 2
    assert ran.line.startswith("DATABASE_URL is not set: set it to ")


async def test_a_variable_that_cannot_be_read_is_named(nodrop: Nodrop) -> None:
    ran = await nodrop("orders", "list", env={"PORT": "http"})
    assert ran.code == 2
    assert ran.line == "PORT: expected `int`, got `str`"


async def test_a_database_that_does_not_answer_is_one_line(nodrop: Nodrop) -> None:
    ran = await nodrop("orders", "list", env={"DATABASE_URL": "postgres://x:secret@127.0.0.1:1/x"})
    assert ran.code == 1
    assert ran.line.startswith("Postgres at 127.0.0.1:1: ")
    assert "secret" not in ran.err


async def test_a_refused_password_is_one_line(nodrop: Nodrop) -> None:
    url = re.sub(r":[^:@/]+@", ":wrong@", nodrop.env["DATABASE_URL"])
    ran = await nodrop("orders", "list", env={"DATABASE_URL": url})
    assert ran.code == 2
    assert "password" in ran.line


async def test_a_missing_database_is_one_line(nodrop: Nodrop) -> None:
    url = nodrop.env["DATABASE_URL"].rpartition("/")[0] + "/nowhere"
    ran = await nodrop("keys", "list", env={"DATABASE_URL": url})
    assert ran.code == 2
    assert "no database" in ran.line


async def test_a_database_without_tables_says_to_migrate(nodrop: Nodrop, unmigrated_database_url: str) -> None:
    ran = await nodrop("keys", "list", env={"DATABASE_URL": unmigrated_database_url})
    assert ran.code == 2
    assert "nodrop migrate" in ran.line


@pytest.mark.parametrize(
    "arguments",
    [
        ("orders", "show", "\udcff"),
        ("orders", "list", "--account", "\udcff"),
        ("keys", "revoke", "\udcff"),
        ("cases", "resolve", "1", "--resolution", "\udcff", "--by", "alice"),
        ("dead-letters", "resend", "\udcff", "--reason", "x"),
        ("accounts", "disable", "x" * 5000, "--reason", "x"),
    ],
)
async def test_bytes_that_are_no_text_and_texts_without_end_are_one_line(
    nodrop: Nodrop, arguments: tuple[str, ...]
) -> None:
    ran = await nodrop(*arguments)
    assert ran.code in (1, 2)
    assert ran.out in ("", "no such orders\n")
    assert ran.line
