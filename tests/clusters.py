"""Clusters of Postgres that are copies of one: initdb takes most of a second of CPU, a copy a tenth of that."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.embedded import EmbeddedPostgres


@contextmanager
def copied_clusters(home: Path) -> Iterator[None]:
    """Let every new server in this block but the first have a copy of the first one's cluster and password. For tests
    that start many servers, and do not test how one is created.
    """
    create, first = EmbeddedPostgres._create_cluster, home / "first"

    def create_or_copy(server: EmbeddedPostgres, initdb: Path) -> None:
        if first.exists():
            _copy(first, server.directory)
        else:
            create(server, initdb)
            first.mkdir(mode=0o700)
            _copy(server.directory, first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddedPostgres, "_create_cluster", create_or_copy)
        yield


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["/bin/cp", "-a", source / "data", source / "password", target], check=True)
