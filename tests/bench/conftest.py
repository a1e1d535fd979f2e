"""Servers of the benchmarks, each with a cluster that is a copy, and processes that are forks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.clusters import copied_clusters, place_of_run


@pytest.fixture(scope="package", autouse=True)
def _cheap_starts(
    tmp_path_factory: pytest.TempPathFactory, forking: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    with copied_clusters(place_of_run(tmp_path_factory)), forking():
        yield
