"""Names, defaults, links and files in the documentation are true."""

import re
from importlib import import_module
from pathlib import Path

import click
import msgspec
import pytest

from api import store_metrics  # noqa: F401 - registers its metrics
from api.http import metrics
from api.sdk import files
from channels.adapters import ADAPTERS, open_channel
from channels.credentials import key_problems
from channels.transport import Transport
from cli.__main__ import nodrop
from cli.accounts.account_file import draft_account, read_account
from core.account import AccountConfig
from core.order import CaseReason
from core.settings import Settings
from storage.postgres.database import Database
from tests.servers import ROOT

PAGES_OF_ROOT = ("README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
DOCS = sorted([*(ROOT / name for name in PAGES_OF_ROOT), *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("api", "channels", "core", "flows", "runtime", "storage", "worker")
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_ROOMS = "api|bench|channels|cli|core|demo|flows|runtime|simulator|storage|worker"
_DOTTED = re.compile(rf"`((?:{_ROOMS})(?:\.[A-Za-z_][A-Za-z_0-9]*)+)`")
_PATH = re.compile(rf"`((?:{_ROOMS}|docs|scripts|tests)/[\w./-]+)`")
_LINK = re.compile(r"\]\(((?!https?:|#)[^)#\s]+)(?:#([^)\s]+))?\)")
_READING = re.compile(r"(?:^\d+\. `[\w/.]+`: .*\n(?: {3}.*\n)*)+", re.MULTILINE)
READING_LINES_MAX = 1000
_ROW = re.compile(r"^\| `([A-Z_]+)` \|([^|]*)\|", re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {name: default.strip() for name, default in _ROW.findall(read("docs/configuration.md"))}
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}
    assert documented == {name: _written(default) for name, default in defaults.items()}


def _written(default: object) -> str:
    """A default as the environment has it."""
    if isinstance(default, bool):
        return str(default).lower()
    return str(int(default)) if isinstance(default, float) and default == int(default) else str(default)


def test_every_channel_with_an_adapter_is_listed() -> None:
    listed = dict(re.findall(r"^\|[^|]+\| `([a-z]+)` \| `([a-z/_.]+)` \|$", read("docs/channels.md"), re.MULTILINE))
    assert listed == {name: f"{adapter.open.__module__.replace('.', '/')}.py" for name, adapter in ADAPTERS.items()}


@pytest.mark.parametrize("channel", [name for name in ADAPTERS if name != "sandbox"])
def test_the_account_on_a_channels_page_has_every_needed_key_and_no_unknown_one(channel: str) -> None:
    """The values are for the reader to fill in."""
    text = read(f"docs/channels/{channel}.md")
    toml = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    draft = draft_account("main", "main.toml", toml.encode())
    assert [problem for problem in draft.problems if "No such file" not in problem.says] == []
    assert draft.table["channel"] == channel
    in_files = {problem.key.removeprefix("credentials.") for problem in draft.problems}
    of_files = {re.sub("_files?$", "", key): "" for key in in_files}
    problems = key_problems(channel, draft.table["credentials"] | of_files)
    assert not [problem for problem in problems if "missing" in problem.says or "no key of" in problem.says]
    assert f"channels/{channel}.md" in read("docs/channels.md")


async def test_the_account_in_the_documentation_can_be_added() -> None:
    """Unchanged, because readers copy it; the sandbox in the documentation has the same account."""
    text = read("docs/channels.md")
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    account = read_account("main", "main.toml", toml.encode())
    async with Transport(timeout_s=1.0) as transport:
        open_channel(account, transport)
    assert account.credentials["keys"]["k1"] in text.partition("/control/accounts")[2]
    plain = AccountConfig(name="main", channel="sandbox", base_url=account.base_url, credentials=account.credentials)
    assert account == plain  # the comments say that these are the defaults


async def test_the_statement_about_overdue_work_runs(database_url: str) -> None:
    (sql,) = re.findall(r"^```sql\n(SELECT.*?)^```$", read("docs/operations.md"), re.MULTILINE | re.DOTALL)
    db = Database.from_settings(Settings(database_url=database_url))
    await db.open()
    try:
        rows = await db.fetch(sql.rstrip().rstrip(";"))
    finally:
        await db.close()
    tables = ("pending", "callbacks", "notifications", "refunds")
    assert [tuple(row) for row in rows] == [(table, 0, None) for table in tables]


def test_the_module_that_shops_embed_is_named_with_its_hash() -> None:
    pages = [ROOT / "docs" / "embedding.md", ROOT / "demo" / "shop" / "pages.py", *(ROOT / "examples").glob("*/*.*")]
    named = re.findall(r"sha384-[\w+/=]+", "".join(page.read_text() for page in pages if page.suffix != ".txt"))
    assert named == [files.INTEGRITY] * 4


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_on_a_page_exists(doc: Path) -> None:
    for words in re.findall(r"\bnodrop((?: [a-z][a-z-]*){1,2})", "\n".join(_CODE.findall(doc.read_text()))):
        assert is_command(words.split()), words


def is_command(words: list[str]) -> bool:
    """Whether these words name a command: `orders show`. A word after a command that is no group is its argument."""
    command: click.Command | None = nodrop
    for word in words:
        if not isinstance(command, click.Group):
            return True
        command = command.get_command(click.Context(command), word)
        if command is None:
            return False
    return True


def test_every_metric_is_documented() -> None:
    exposed = set(re.findall(r"^# HELP (nodrop_[a-z_]+) ", metrics.exposition().decode(), re.MULTILINE))
    assert set(re.findall(r"^\| `(nodrop_[a-z_]+)` \|", read("docs/operations.md"), re.MULTILINE)) == exposed


def test_every_reason_of_a_case_has_an_instruction() -> None:
    table = read("docs/operations.md").partition("| Reason |")[2].partition("\n\n")[0]
    named = [
        name for cell in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]
    assert sorted(named) == sorted(CaseReason)


def test_every_documented_log_event_is_in_the_code() -> None:
    """With its whole name, or with the name of a loop and the end of the event (`loop_failing`)."""
    table = read("docs/operations.md").partition("| `event` |")[2].partition("\n\n")[0]
    source = "\n".join(path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    for event in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", table):
        loop, _, ending = event.partition("_")
        assert f'"{event}"' in source or (f'"{loop}"' in source and f'_{ending}"' in source), event


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_path_and_link_on_a_page_exists(doc: Path) -> None:
    """Dotted names of modules and their members, paths of files, links to pages and to their headings."""
    text = doc.read_text()
    for name in _DOTTED.findall(text):
        assert resolves(name), name
    for path in _PATH.findall(text):
        assert (ROOT / path).exists(), path
    for path, heading in _LINK.findall(text):
        target = doc.parent / path
        assert target.exists(), path
        assert not heading or heading in headings(target.read_text()), f"{path}#{heading}"


def resolves(name: str) -> bool:
    """Whether this is a module or a member of one: `flows.place.place_order`."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            member: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            member = getattr(member, part, None)
        return member is not None
    return False


def headings(text: str) -> set[str]:
    """The anchors of a page's headings: `## Redis is down` → `redis-is-down`."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_on_a_page_exists(doc: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for code in _CODE.findall(doc.read_text()):
        for words in re.findall(r"\bmake((?: [a-z]+)+)", code):
            assert set(words.split()) <= targets, words


def test_readme_and_docs_have_the_same_reading_list_of_at_most_1000_lines() -> None:
    (in_readme,) = _READING.findall(read("README.md"))
    (in_docs,) = _READING.findall(read("docs/life-of-an-order.md"))
    assert in_readme == in_docs
    files = re.findall(r"^\d+\. `([\w/.]+)`", in_readme, re.MULTILINE)
    lines = {file: len(read(file).splitlines()) for file in files}
    assert len(lines) > 1
    assert sum(lines.values()) <= READING_LINES_MAX, lines


def test_every_threat_has_tests_that_exist() -> None:
    rows = re.findall(r"^\| (S[0-9]+) \|.*\| ([^|]*) \|$", read("docs/security.md"), re.MULTILINE)
    assert [number for number, _ in rows] == [f"S{number}" for number in range(1, len(rows) + 1)]
    there = set[str]()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    for number, named in rows:
        tests = re.findall(r"`(\w+)`", named)
        assert tests, number
        assert set(tests) <= there, (number, set(tests) - there)
