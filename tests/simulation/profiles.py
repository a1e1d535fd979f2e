"""Profiles of the faults of a world, and the schedule that the seed makes of one.

Shares are drawn at each request, callback or order. Outages and crashes have their own instants; each is one fault of
the book. All faults end a while before the world does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from math import log
from types import MappingProxyType

import msgspec

from simulator.kernel.faults import CallKind, FaultProfile
from tests.simulation.faults import FaultBook
from tests.simulation.network import Blackout, LinkFaults
from tests.simulation.plan import pick

DAY_S = 86_400.0
TO_CHANNELS = ("product>sandbox", "product>alipay", "product>wechatpay", "product>stripe", "product>paypal")
CALLBACKS = ("sandbox>api", "alipay>api", "wechatpay>api", "stripe>api", "paypal>api")


class Part(StrEnum):
    """Parts of a deployment that fail at an instant, for a while or once."""

    POSTGRES_REFUSES = "postgres_refuses"
    POSTGRES_FREEZES = "postgres_freezes"
    POSTGRES_READ_ONLY = "postgres_read_only"
    POSTGRES_RESTARTS = "postgres_restarts"
    POSTGRES_TERMINATES = "postgres_terminates"
    REDIS_REFUSES = "redis_refuses"
    REDIS_FREEZES = "redis_freezes"
    REDIS_READ_ONLY = "redis_read_only"
    REDIS_FULL = "redis_full"
    REDIS_FLUSHED = "redis_flushed"
    REDIS_RESTARTS = "redis_restarts"
    API_CRASHES = "api_crashes"
    WORKER_CRASHES = "worker_crashes"
    WORKER_STOPS = "worker_stops"
    CLOCK_JUMPS = "clock_jumps"
    LINKS_CUT = "links_cut"
    LINKS_SILENT = "links_silent"


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """Rate at which a part fails, and the length of each failure. `links`: those of `LINKS_CUT` and `LINKS_SILENT`."""

    part: Part
    per_hour: float
    seconds: tuple[float, float] = (0.0, 0.0)
    links: tuple[str, ...] = ()


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A failure at its instant, in seconds since the world began. `link` is drawn of those of its part."""

    name: str
    part: Part
    at_s: float
    until_s: float
    link: str = ""
    drawn: float = 0.0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Faults of a world. `lasts_s`: seconds after the last order was placed at which all faults end.

    `exchange_crash` is the share of exchanges in whose middle the
    process that calls, or is called, crashes; `store_cut` and `store_crash` are the shares of statements and commands
    around which the connection is cut, or the process crashes.
    """

    name: str
    channel: FaultProfile = FaultProfile()
    links: Mapping[str, LinkFaults] = MappingProxyType({})
    failing: tuple[Failing, ...] = ()
    exchange_crash: float = 0.0
    store_cut: float = 0.0
    store_crash: float = 0.0
    lasts_s: float = 2700.0
    apis: int = 1
    workers: int = 1


_ROUGH_CHANNEL = LinkFaults(
    cut_before=0.01, answered_5xx=0.03, html_error=0.005, cut_after=0.01, cut_within=0.005, truncated=0.005, slow=0.02
)
_ROUGH_CALLBACKS = LinkFaults(refused=0.02, cut_before=0.03, cut_after=0.02, doubled=0.03, slow=0.05)
_ROUGH_MERCHANT = LinkFaults(
    cut_before=0.01, answered_5xx=0.02, cut_after=0.02, failed_after=0.01, doubled=0.01, slow=0.02
)
_ROUGH_SHOPPER = LinkFaults(refused=0.01, cut_before=0.02, cut_after=0.02, slow=0.03)

_USUAL_CHANNEL = FaultProfile(
    lost=0.02, late=0.03, late_s=900.0, reordered=0.02, doubled=0.05, event_never_generated=0.005,
    settles_after_close=0.02, settles_later=0.01, not_found_first=0.03, settle_after_s=40.0,
)  # fmt: skip

_HARSH_CHANNEL = FaultProfile(
    lost=0.40, late=0.10, late_s=3600.0, reordered=0.05, reordered_max_s=60.0, doubled=0.20, wrong_amount=0.05,
    stale=0.03, forged=0.20, forged_checksum=0.20, event_never_generated=0.03, not_found_first=0.10,
    create_answer_lost=0.02, close_answer_lost=0.05, settles_after_close=0.10, settles_later=0.05, settle_after_s=120.0,
    wrong_amount_in_query=0.01, refund_settles_s=600.0, refund_fails=0.1,
)  # fmt: skip

_USUAL_LINKS = {
    "product>merchant": LinkFaults(cut_before=0.005, answered_5xx=0.01, cut_after=0.005),
    "product>*": LinkFaults(cut_before=0.002, answered_5xx=0.005, cut_after=0.002, slow=0.005),
    "merchant>api": LinkFaults(cut_before=0.005, cut_after=0.005),
    "shopper>*": LinkFaults(cut_before=0.005, cut_after=0.005, slow=0.01),
    "*>api": LinkFaults(cut_before=0.01, cut_after=0.005, doubled=0.01, slow=0.01),
}
_HARSH_LINKS = {
    "product>merchant": _ROUGH_MERCHANT,
    "product>*": _ROUGH_CHANNEL,
    "merchant>api": LinkFaults(refused=0.02, cut_before=0.02, cut_after=0.03, doubled=0.02, slow=0.02),
    "shopper>*": _ROUGH_SHOPPER,
    "*>api": _ROUGH_CALLBACKS,
}

_CRASHES = (
    Failing(part=Part.API_CRASHES, per_hour=18.0),
    Failing(part=Part.WORKER_CRASHES, per_hour=18.0),
    Failing(part=Part.WORKER_STOPS, per_hour=3.0),
)
_POSTGRES = (
    Failing(part=Part.POSTGRES_REFUSES, per_hour=4.5, seconds=(1.0, 600.0)),
    Failing(part=Part.POSTGRES_FREEZES, per_hour=3.0, seconds=(1.0, 60.0)),
    Failing(part=Part.POSTGRES_READ_ONLY, per_hour=1.5, seconds=(5.0, 300.0)),
    Failing(part=Part.POSTGRES_RESTARTS, per_hour=6.0),
    Failing(part=Part.POSTGRES_TERMINATES, per_hour=18.0),
)
_REDIS = (
    Failing(part=Part.REDIS_REFUSES, per_hour=4.5, seconds=(1.0, 1200.0)),
    Failing(part=Part.REDIS_FREEZES, per_hour=3.0, seconds=(1.0, 60.0)),
    Failing(part=Part.REDIS_READ_ONLY, per_hour=1.5, seconds=(5.0, 600.0)),
    Failing(part=Part.REDIS_FULL, per_hour=1.5, seconds=(5.0, 600.0)),
    Failing(part=Part.REDIS_FLUSHED, per_hour=6.0),
    Failing(part=Part.REDIS_RESTARTS, per_hour=3.0),
)
_NETWORK = (
    Failing(part=Part.LINKS_CUT, per_hour=9.0, seconds=(5.0, 1200.0), links=(*TO_CHANNELS, *CALLBACKS, "product>*")),
    Failing(part=Part.LINKS_SILENT, per_hour=6.0, seconds=(5.0, 900.0), links=(*TO_CHANNELS, *CALLBACKS, "*>api")),
)
_CLOCKS = (Failing(part=Part.CLOCK_JUMPS, per_hour=3.0, seconds=(60.0, 3600.0)),)


def _seldom(failing: tuple[Failing, ...], factor: float) -> tuple[Failing, ...]:
    return tuple(msgspec.structs.replace(each, per_hour=each.per_hour * factor) for each in failing)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(name="calm", lasts_s=0.0),
            Profile(
                name="usual",
                channel=_USUAL_CHANNEL,
                links=_USUAL_LINKS,
                failing=_seldom((*_CRASHES, *_POSTGRES, *_REDIS, *_NETWORK), 0.03),
            ),
            Profile(
                name="harsh",
                channel=_HARSH_CHANNEL,
                links=_HARSH_LINKS,
                failing=_seldom((*_CRASHES, *_POSTGRES, *_REDIS, *_NETWORK), 0.3),
                apis=2,
                workers=2,
            ),
            Profile(name="postgres", channel=_USUAL_CHANNEL, links=_USUAL_LINKS, failing=_POSTGRES),
            Profile(name="redis", channel=_USUAL_CHANNEL, links=_USUAL_LINKS, failing=_REDIS),
            Profile(name="network", channel=_USUAL_CHANNEL, links=_USUAL_LINKS, failing=_NETWORK),
            Profile(
                name="crashes",
                channel=_USUAL_CHANNEL,
                links=_USUAL_LINKS,
                failing=_CRASHES,
                exchange_crash=0.004,
                store_cut=0.001,
                store_crash=0.001,
                apis=2,
                workers=2,
            ),
            Profile(
                name="outages",
                channel=_USUAL_CHANNEL,
                links=_USUAL_LINKS,
                failing=_seldom((*_POSTGRES, *_REDIS, *_NETWORK, *_CRASHES), 0.5),
            ),
            Profile(name="clocks", channel=_USUAL_CHANNEL, links=_USUAL_LINKS, failing=_CLOCKS, apis=2, workers=2),
            Profile(
                name="storm",
                channel=msgspec.structs.replace(_USUAL_CHANNEL, doubled=0.9),
                links={"*>api": LinkFaults(doubled=0.9, slow=0.2), **_USUAL_LINKS},
            ),
            Profile(
                name="callbacks_never",
                channel=msgspec.structs.replace(_USUAL_CHANNEL, event_never_generated=1.0),
                links=_USUAL_LINKS,
            ),
            Profile(
                name="queries_never",
                channel=msgspec.structs.replace(_USUAL_CHANNEL, affected=(CallKind.QUERY,), answered_5xx=1.0),
                links=_USUAL_LINKS,
                lasts_s=3 * 3600.0,
            ),
            Profile(
                name="one_channel_silent",
                channel=_USUAL_CHANNEL,
                lasts_s=3 * 3600.0,
                links=_USUAL_LINKS,
                failing=(
                    Failing(
                        part=Part.LINKS_SILENT,
                        per_hour=0.5,
                        seconds=(3600.0, 12_000.0),
                        links=(*TO_CHANNELS, *CALLBACKS),
                    ),
                ),
            ),
            Profile(
                name="merchant_hangs",
                channel=_USUAL_CHANNEL,
                links=_USUAL_LINKS,
                failing=(
                    Failing(part=Part.LINKS_SILENT, per_hour=1.0, seconds=(600.0, 7200.0), links=("product>merchant",)),
                ),
            ),
            Profile(
                name="everything",
                channel=_HARSH_CHANNEL,
                links=_HARSH_LINKS,
                failing=_seldom((*_CRASHES, *_POSTGRES, *_REDIS, *_NETWORK, *_CLOCKS), 0.5),
                exchange_crash=0.002,
                store_cut=0.001,
                store_crash=0.0005,
                apis=2,
                workers=2,
            ),
        )
    }
)
"""By name."""

MIX: Mapping[str, float] = MappingProxyType(
    {"calm": 0.1, "usual": 0.3, "harsh": 0.15, "everything": 0.1}
    | dict.fromkeys(
        "postgres redis network crashes clocks storm callbacks_never queries_never one_channel_silent"
        " merchant_hangs".split(),
        0.035,
    )
)
"""Shares of the worlds of a mix."""


def profile_of(name: str, seed: int) -> Profile:
    """Return a profile, or for `mix` the one that the seed chooses."""
    return PROFILES[pick(MIX, FaultBook(seed).draw("profile")) if name == "mix" else name]


def schedule(profile: Profile, book: FaultBook, until_s: float) -> Iterator[Planned]:
    """Yield the failures of the parts of a world before `until_s`, each part in order."""
    for row, failing in enumerate(profile.failing):
        at_s, count = 0.0, 0
        while True:
            count += 1
            name = f"{failing.part} {row}.{count}"
            at_s += _exponential(book.draw(f"{name} gap"), 3600.0 / failing.per_hour)
            if at_s >= until_s:
                break
            lasts_s = book.between(f"{name} lasts", *failing.seconds) * book.draw(f"{name} share")
            drawn = book.draw(f"{name} which")
            yield Planned(
                name=name,
                part=failing.part,
                at_s=at_s,
                until_s=min(until_s, at_s + lasts_s),
                link=failing.links[int(drawn * len(failing.links))] if failing.links else "",
                drawn=drawn,
            )


def blackouts(planned: list[Planned]) -> tuple[Blackout, ...]:
    """Return the outages of links among the failures."""
    return tuple(
        Blackout(
            name=f"{each.name} {each.link}",
            link=each.link,
            from_s=each.at_s,
            until_s=each.until_s,
            is_silent=each.part is Part.LINKS_SILENT,
        )
        for each in planned
        if each.part in (Part.LINKS_CUT, Part.LINKS_SILENT)
    )


def _exponential(drawn: float, mean: float) -> float:
    return -mean * log(1.0 - drawn)
