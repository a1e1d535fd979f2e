"""Servers of the benchmarks, each with a cluster that is a copy."""

from collections.abc import Iterator

import pytest

from tests.clusters import copied_clusters


@pytest.fixture(scope="package", autouse=True)
def _clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with copied_clusters(tmp_path_factory.mktemp("clusters")):
        yield
