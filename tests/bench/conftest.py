"""Servers of the benchmarks, each with a cluster that is a copy and where the session's are, and processes that are
forks.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.clusters import copied_clusters, place_of_run


@pytest.fixture(scope="package", autouse=True)
def _cheap_starts(
    tmp_path_factory: pytest.TempPathFactory, forking: Callable[[], AbstractContextManager[None]], servers_home: Path
) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, copied_clusters(place_of_run(tmp_path_factory)), forking():
        patch.setattr("tempfile.tempdir", str(servers_home))
        yield
