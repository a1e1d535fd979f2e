"""A server for worlds, and worlds in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.servers import ROOT
from tests.simulation.postgres import Cluster, cluster

_INHERITED = ("PATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE")

LIMIT_S = 300.0
"""Ends a world that hangs. No time that is tested."""

PlayScene = Callable[..., dict[str, Any]]


def run_world(module: str, *arguments: str) -> bytes:
    """Run `python -m MODULE …` to its end with an environment of its own; return the last line that it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={name: os.environ[name] for name in _INHERITED if name in os.environ},
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def worlds(servers_home: Path) -> Iterator[Cluster]:
    """The Postgres of all worlds of this session: autovacuum would change the order of rows in it by chance."""
    with cluster(servers_home / "worlds") as made:
        yield made


@pytest.fixture(scope="session")
def play(worlds: Cluster) -> PlayScene:
    """Plays a scene of `tests.simulation.bare` in a new world; returns what it printed."""
    numbers = count()

    def play_scene(scene: str, seed: int = 1) -> dict[str, Any]:
        url = worlds.new_database(f"world_{next(numbers)}")
        result: dict[str, Any] = msgspec.json.decode(run_world("tests.simulation.bare", scene, str(seed), url))
        return result

    return play_scene
