"""The version, completion of the shell, names that are nearly right, and colours that switch off."""

import tomllib

import click
import pytest
from click.testing import CliRunner

from cli.__main__ import COMMANDS
from cli.__main__ import nodrop as command
from cli.version import nodrop_version
from tests.cli.nodrop import Nodrop
from tests.servers import ROOT

RED = "\x1b[31m"


@click.command("paint")
def paint() -> None:
    click.echo(click.style("it is down", fg="red"))


async def test_the_version_is_that_of_the_project(bare: Nodrop) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert nodrop_version() == project["version"]
    ran = await bare("--version")
    assert (ran.code, ran.out) == (0, f"nodrop {project['version']}\n")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("order",), "Did you mean 'orders'?"),
        (("cases", "lst"), "Did you mean 'list'?"),
        (("orders", "lst", "--jsno"), "Did you mean 'list'?"),
        (("orders", "list", "--jsno"), "(Did you mean one of: '--json', '--since'?)"),
        (("--versoin",), "Did you mean '--version'?"),
    ],
)
async def test_a_name_that_is_nearly_right_is_named(bare: Nodrop, words: tuple[str, ...], hint: str) -> None:
    ran = await bare(*words)
    assert (ran.code, ran.out) == (2, "")
    assert hint in ran.err


async def test_the_shell_completes_commands_and_options(bare: Nodrop) -> None:
    """As a process, because click takes the request from the environment before the command runs."""
    for words, wanted in (
        ("nodrop ord", {"plain,orders"}),
        ("nodrop orders sh", {"plain,show"}),
        ("nodrop orders list --js", {"plain,--json"}),
        ("nodrop --ver", {"plain,--version"}),
    ):
        request = {
            "_NODROP_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        ran = await bare.process(env=request)
        assert set(ran.out.split()) == wanted, words


def test_completion_of_commands_imports_none_of_them() -> None:
    """Also where the demo's servers are not installed."""
    context = click.Context(command)
    items = command.shell_complete(context, "")
    assert [item.value for item in items if not item.value.startswith("-")] == list(COMMANDS)
    assert {item.value for item in command.shell_complete(context, "--no")} == {"--no-color"}


@pytest.mark.parametrize(
    ("words", "env", "is_red"),
    [
        ((), {}, True),
        (("--no-color",), {}, False),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"NO_COLOR": ""}, True),
    ],
)
def test_colours_switch_off(
    words: tuple[str, ...], env: dict[str, str], is_red: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(command), "get_command", lambda *_: paint)
    shown = CliRunner().invoke(command, [*words, "paint"], env={"NO_COLOR": None, **env}, color=True)
    assert (RED in shown.output) is is_red
    assert click.unstyle(shown.output) == "it is down\n"


def test_elsewhere_than_on_a_terminal_there_are_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(command), "get_command", lambda *_: paint)
    assert CliRunner().invoke(command, ["paint"], env={"NO_COLOR": None}).output == "it is down\n"
