import pytest

from bench import __main__ as command
from bench.peers import environment
from bench.peers.environment import PeerMissing, peer_python
from bench.report import Result
from bench.sizes import ShowProgress, Sizes


@pytest.mark.slow
@pytest.mark.network  # an environment with pip, as for a peer
async def test_peer_that_cannot_be_installed_is_missing_with_pips_reason() -> None:
    with pytest.raises(PeerMissing, match="requirements"):
        async with peer_python("nobody"):
            pass


def test_every_peer_has_a_lock_with_hashes() -> None:
    wanted = list(environment.PEERS.glob("*/requirements.in"))
    assert wanted
    for requirements in wanted:
        lock = requirements.with_suffix(".txt").read_text()
        assert lock.count("==") <= lock.count("--hash=sha256:")
        assert "://" not in lock


async def test_benchmark_of_a_missing_peer_is_skipped_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def measure(_sizes: Sizes, _show_progress: ShowProgress) -> Result:
        raise PeerMissing("no network")

    monkeypatch.setattr(command, "BENCHMARKS", {"usual": measure})
    progress: list[str] = []
    result = await command._measure("usual", Sizes(), progress.append)
    assert (result.settings, result.figures) == ({"skipped": "no network"}, ())
    assert progress == ["skipped: no network"]
