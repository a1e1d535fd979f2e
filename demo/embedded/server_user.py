"""The user that runs Postgres, which refuses to run as root: `nobody`, with access to few directories."""

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


def server_user() -> User | None:
    """Return the user that runs Postgres; None if this process is not root and runs it itself."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return User(entry.pw_uid, entry.pw_gid)


def reachable_directory(preferred: Path) -> Path:
    """Return `preferred`, or a fixed directory in /var/tmp if `nobody` has no access to it (a checkout below /root).

    Raises:
        EmbeddedError: that directory belongs to another user.
    """
    user = server_user()
    preferred = preferred.absolute()
    preferred.parent.mkdir(parents=True, exist_ok=True)
    if user is None or may_enter(preferred.parent, user):
        return preferred
    place = Path("/var/tmp", f"nodrop-{sha256(bytes(preferred)).hexdigest()[:16]}")  # noqa: S108 -- its owner is checked
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.geteuid():
        raise EmbeddedError(f"{place} belongs to another user; remove it first")
    place.chmod(0o711)
    return place / preferred.name


@contextmanager
def temporary_directory(parent: Path | None = None) -> Iterator[Path]:
    """Yield a directory for temporary servers. `tempfile` alone makes directories without access for `nobody`."""
    with TemporaryDirectory(prefix="nodrop-", dir=parent) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def hand_over(path: Path, user: User) -> None:
    """Give `path` and all below it to the user."""
    for entry in (path, *path.rglob("*")):
        os.chown(entry, *user, follow_symlinks=False)


def readable_copy(binaries: Path, user: User, directory: Path) -> Path:
    """Return `binaries`, or a copy below `directory`, made once, if `user` may not run them.

    Binaries find their files and libraries by relative paths: the copy has the whole package and the libraries beside
    it.
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
    """Return whether `user` may enter this directory and all its parents."""
    directory = directory.resolve()
    return all(_is_granted(step, 0o1, user) for step in (directory, *directory.parents))


def _is_granted(path: Path, bits: int, user: User) -> bool:
    """Check the mode only: `nobody` is in no group and on no access list."""
    status = path.stat()
    granted = status.st_mode >> 6 if status.st_uid == user.uid else status.st_mode
    return granted & bits == bits
