"""The clock of a web process and a worker is wrong: by minutes, by an hour, by years, and it jumps while they run."""

from __future__ import annotations

from calendar import isleap
from datetime import UTC, datetime
from pathlib import Path

from demo.embedded import free_port
from demo.service import Service
from tests.chaos.ground import Disturbance, Ground, open_stack
from tests.chaos.probes import Callbacks
from tests.servers import eventually

MINUTES_10_S = 600.0
HOUR_S = 3600.0

SENT = 20


def libfaketime() -> str:
    """Return the path of libfaketime; an empty text where there is none."""
    places = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")) or sorted(
        Path("/usr/lib/faketime").glob("libfaketime.so.1")
    )
    return str(places[0]) if places else ""


def until_leap_day_s(now: datetime) -> float:
    """Return the seconds until noon of the next 29 February."""
    year = now.year
    while True:
        if isleap(year):
            noon = datetime(year, 2, 29, 12, tzinfo=UTC)
            if noon > now:
                return (noon - now).total_seconds()
        year += 1


async def disturb(ground: Ground) -> None:
    """Run a web process and a worker under each wrong clock beside the others, and call the web process back."""
    shifts = {
        "ten minutes ahead": MINUTES_10_S,
        "ten minutes behind": -MINUTES_10_S,
        "an hour ahead": HOUR_S,
        "leap day": until_leap_day_s(datetime.now(UTC)),
    }
    for name, by_s in shifts.items():
        await _wrong(ground, name, by_s, ground.seconds / (len(shifts) + 1))
    if libfaketime():
        await _jump(ground, ground.seconds / (len(shifts) + 1))
    else:
        ground.progress.write("There is no libfaketime: no clock jumps while a process runs")


async def _wrong(ground: Ground, name: str, by_s: float, seconds: float) -> None:
    key = name.replace(" ", "-")
    preload = {} if not libfaketime() else _faked(f"{by_s:+.0f}s")
    services, url = _services(ground, key, by_s, preload)
    ground.note(f"A web process and a worker whose clock is {name}")
    async with ground.running(*services):
        await _send(ground, name, url, seconds)


async def _jump(ground: Ground, seconds: float) -> None:
    """Let the clock be right at the start, then an hour ahead, then ten minutes behind."""
    offsets = ground.stack.directory / "clock-offset"
    offsets.write_text("+0s\n")
    preload = _faked("") | {"FAKETIME_TIMESTAMP_FILE": str(offsets), "FAKETIME_NO_CACHE": "1"}
    preload.pop("FAKETIME")
    services, url = _services(ground, "jumping", 0.0, preload)
    async with ground.running(*services):
        for offset in ("+3600s", "-600s"):
            ground.note(f"The clock of a web process and a worker jumps to {offset}")
            offsets.write_text(f"{offset}\n")
            await _send(ground, f"jump to {offset}", url, seconds / 2)


async def _send(ground: Ground, name: str, url: str, seconds: float) -> None:
    """Call the process back until its time is over: every genuine callback is acknowledged there."""
    async with Callbacks(ground, SENT, url) as callbacks:
        await callbacks.expect_acknowledged(name, seconds, SENT)
        ground.measure(f"{name}: the clock is corrected by", await _correction_s(ground, url), "s")


async def _correction_s(ground: Ground, url: str) -> float:
    """Return the seconds by which the process corrects its clock, once it has compared it."""

    async def known() -> list[float]:
        response = await ground.scenario.http.get(f"{url}/readyz")
        skew_s = response.json()["clock_skew_s"]
        return [] if skew_s is None else [skew_s]

    [skew_s] = await eventually(known)
    return skew_s


def _services(ground: Ground, key: str, by_s: float, preload: dict[str, str]) -> tuple[tuple[Service, ...], str]:
    """Return a web process and a worker under this clock, not started, and the address of the first."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def service(kind: str, health_url: str = "", **env: str) -> Service:
        name = f"{key}-{kind}-{port}"
        if preload:
            return ground.new_service(name, kind, health_url=health_url, env=preload | env)
        module = "tests.scenarios.with_wrong_clock"
        return ground.new_service(name, module, kind, "--by-s", str(by_s), health_url=health_url, env=env)

    return (service("api", f"{url}/healthz", PORT=str(port)), service("worker")), url


def _faked(offset: str) -> dict[str, str]:
    """Return the environment that moves the wall clock alone."""
    return {"LD_PRELOAD": libfaketime(), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


DISTURBANCE = Disturbance(
    "clock",
    "a web process and a worker under a clock ten minutes and an hour off, on a leap day, and one that jumps",
    60.0,
    disturb,
    open_stack,
)
