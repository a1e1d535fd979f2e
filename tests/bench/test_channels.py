"""Costs of the channel adapters, against a simulated channel in this process."""

from pathlib import Path

import httpx
import pytest

from bench.certificates import make_certificates
from bench.channels import _ChannelProcess, _measure
from bench.sizes import Sizes
from simulator.kit.serve import Tls
from simulator.servers import serve_channels

TINY = Sizes(channel_queries=1, channel_callbacks=1)


async def test_a_probe_before_the_callback_is_refused_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WeChat Pay sends some callbacks with a wrong signature first, to see whether it is verified."""
    certificates = make_certificates(tmp_path)
    tls = Tls(str(certificates.certificate), str(certificates.key))
    async with (
        serve_channels(tls=tls) as (url, channel),
        httpx.AsyncClient(verify=certificates.context, trust_env=False, timeout=60) as http,
    ):
        monkeypatch.setattr(channel.channels["wechatpay"], "probed_share", 1.0)
        figures = await _measure(_ChannelProcess(url, http), "wechatpay", TINY, certificates)
        [tally] = channel.sender.tallies.values()
    assert [each.name for each in figures] == ["wechatpay_query_tls", "wechatpay_callback"]
    assert (tally.forged, tally.forged_acknowledged, tally.acknowledged) == (1, 0, 1)
