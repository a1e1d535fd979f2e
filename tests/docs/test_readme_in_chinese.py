"""README.zh-CN.md says what README.md says: the same blocks, names in backticks, links, sections and rows."""

import re
from collections import Counter

from tests.servers import ROOT

ENGLISH, CHINESE = "README.md", "README.zh-CN.md"
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)]+)\)")


def read(name: str) -> str:
    return (ROOT / name).read_text()


def prose(name: str) -> str:
    """The text outside of blocks, without the line that links to the other language."""
    return "\n".join(line for line in _BLOCK.sub("", read(name)).splitlines() if "](README" not in line)


def links(name: str) -> list[str]:
    return _LINK.findall(prose(name))


def test_every_block_is_the_same() -> None:
    """Commands, outputs and drawings are not translated, so that one test of them is enough."""
    assert _BLOCK.findall(read(CHINESE)) == _BLOCK.findall(read(ENGLISH))


def test_they_have_the_same_links() -> None:
    glossary = "docs/glossary.md"  # once more in Chinese, where it is named as the list of the Chinese terms
    assert Counter(links(CHINESE)) == Counter([*links(ENGLISH), glossary])


def test_they_name_the_same_commands_files_and_variables() -> None:
    """In other places of their sentences, and as often."""
    names = re.compile(r"`([^`\n]+)`")
    assert Counter(names.findall(prose(CHINESE))) == Counter(names.findall(re.sub(r"`\n", "` ", prose(ENGLISH))))


def test_they_have_the_same_sections_paragraphs_and_rows() -> None:
    for mark in (r"^#+ ", r"^- ", r"^\d+\. ", r"^\|", r"^\*\*"):
        counts = [len(re.findall(mark, prose(name), re.MULTILINE)) for name in (ENGLISH, CHINESE)]
        assert counts[0] == counts[1], mark


def test_each_links_to_the_other_at_its_top() -> None:
    assert "[简体中文](README.zh-CN.md)" in read(ENGLISH).splitlines()[:4]
    assert "[English](README.md)" in read(CHINESE).splitlines()[:4]
