"""Keys that stand in files of their own: `private_key_file = "apiclient_key.pem"` beside, or instead of, `private_key`.

Also `…_files`, for keys that are lists or tables of texts. Paths are relative to the TOML file's folder. The files are
read once, when the account is added: what is stored is what was in them.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from cli.output import warn

FILES_MAX = 32
FILE_BYTES_MAX = 64 * 1024
"""A certificate with its chain takes a few kilobytes."""

READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH


class Unread(Exception):
    """A file that cannot stand for a key; the message says why, and never what is in it."""


def with_files(credentials: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The credentials with the contents of their files, and of each key whose files cannot be read, why."""
    contents: dict[str, Any] = {}
    problems = []
    for name, value in credentials.items():
        key, is_many = name.removesuffix("_files"), name.endswith("_files")
        key = key if is_many else name.removesuffix("_file")
        if key == name:
            contents[name] = value
            continue
        if key in credentials or (is_many and f"{key}_file" in credentials):
            problems.append((name, "given twice"))
            continue
        try:
            contents[key] = _many(value, folder) if is_many else _one(value, folder)
        except Unread as unread:
            problems.append((name, str(unread)))
    return contents, problems


def _many(paths: object, folder: Path) -> list[str] | dict[str, str]:
    match paths:
        case list() if len(paths) <= FILES_MAX:
            return [_one(path, folder) for path in paths]
        case dict() if len(paths) <= FILES_MAX:
            return {str(name): _one(path, folder) for name, path in paths.items()}
    raise Unread(f"not a list or a table of at most {FILES_MAX} paths")


def _one(name: object, folder: Path) -> str:
    """The text of one file without the white space around it, which editors put there.

    Raises:
        Unread: it is no path, no file, too long or no text.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise Unread("not the path of a file, in quotes")
    path = folder / Path(name).expanduser()
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise Unread(f"{name} is no file")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, RuntimeError) as error:  # RuntimeError: `~` of an unknown user
        raise Unread(f"{name}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None
    if len(content) > FILE_BYTES_MAX:
        raise Unread(f"{name} is larger than {FILE_BYTES_MAX // 1024} KiB, which no key is")
    if mode & READABLE_BY_OTHERS and b"PRIVATE KEY" in content:
        warn(f"{path} can be read by others on this machine: chmod 600 {path}, and delete it afterwards")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise Unread(f"{name} is not text: of a certificate or key, the form that is named PEM is needed") from None
