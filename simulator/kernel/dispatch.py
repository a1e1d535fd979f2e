"""What happens to a call before and after the channel handles it: the faults that all channels share."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from simulator.kernel.base import Asked, Call, Channel
from simulator.kernel.clock import steady_s
from simulator.kernel.faults import CallKind, Fault, draw
from simulator.kernel.simulation import FarSide
from simulator.kernel.traffic import Arrival
from simulator.kit.asgi import HTML, Cut, Hang, Later, Reply, Request, Response, Route, problem

_ANSWER_LOST = {CallKind.CREATE: Fault.CREATE_ANSWER_LOST, CallKind.CLOSE: Fault.CLOSE_ANSWER_LOST}
_STATUSES = (500, 502, 503, 504)
_PAGE = b"<!doctype html><html><head><title>Maintenance</title></head><body><h1>Back soon</h1></body></html>"


def routes(far_side: FarSide, channel: Channel) -> list[Route]:
    """The addresses of a channel, each wrapped in its faults."""
    by_address: dict[tuple[str, str], list[Call]] = {}
    for call in channel.calls:
        by_address.setdefault((call.method, call.pattern), []).append(call)
    return [
        Route(method, pattern, partial(_dispatch, far_side, channel, tuple(calls)))
        for (method, pattern), calls in by_address.items()
    ]


async def _dispatch(far_side: FarSide, channel: Channel, calls: tuple[Call, ...], request: Request) -> Reply:
    for call in calls:
        if call.when is None or call.when(request):
            return await _answer(far_side, channel, call, request)
    return problem(404, "NOT_FOUND", "this channel has no such call")


def switched_off(far_side: FarSide) -> Reply | None:
    """What everybody is answered while the whole channel is down or unreachable."""
    profile = far_side.faults.profile
    if profile.blackhole:
        return Hang(seconds=profile.hang_s)
    return problem(503, "UNAVAILABLE", "the channel is down") if profile.down else None


async def _answer(far_side: FarSide, channel: Channel, call: Call, request: Request) -> Reply:
    number, counters = call.number(request), far_side.traffic.counters
    arrived = steady_s()
    far_side.traffic.add(Arrival(arrived, channel.claimed_merchant(request)[:64], call.kind, number[:64]))
    counters[f"calls_{call.kind}"] += 1
    off = switched_off(far_side)
    if off is not None:
        counters["calls_switched_off"] += 1
        return off
    now = far_side.now()
    account = channel.authenticate(request, far_side.accounts, now)
    if isinstance(account, Response):
        counters["calls_unauthenticated"] += 1
        return account
    nth = far_side.traffic.nth(call.kind, number)
    asked = Asked(account=account, request=request, now=now, nth=nth)
    if not far_side.traffic.admits(account.merchant_id, far_side.faults.profile.rate_limit_per_s, arrived):
        counters["calls_rate_limited"] += 1
        return channel.too_many(asked)
    return _with_faults(far_side, call, asked, number)


def _with_faults(far_side: FarSide, call: Call, asked: Asked, number: str) -> Reply:
    faults, counters, profile = far_side.faults, far_side.traffic.counters, far_side.faults.profile

    def strikes(fault: Fault) -> bool:
        struck = call.kind in profile.affected and faults.strikes(fault, number, asked.nth)
        counters[f"faults_{fault}"] += struck
        return struck

    if strikes(Fault.ANSWERED_5XX):
        return _server_error(_pick(faults.seed, number, asked.nth))
    if strikes(Fault.TIMED_OUT):
        return Hang(seconds=profile.hang_s)
    if strikes(Fault.HTML_ERROR):
        return Response(body=_PAGE, content_type=HTML)
    response = call.handle(far_side, asked)
    reply: Response | Cut = response
    if call.kind in _ANSWER_LOST and strikes(_ANSWER_LOST[call.kind]):
        picked = _pick(faults.seed, number, asked.nth)
        # Of an empty answer (204) nothing can be cut off.
        reply = _server_error(picked) if picked % 2 or not response.body else Cut(response=response, keep=0)
    elif strikes(Fault.CUT):
        reply = Cut(response=response, keep=len(response.body) // 2)
    elif strikes(Fault.TRUNCATED):
        reply = replace(response, body=response.body[: len(response.body) // 2])
    return Later(seconds=profile.slow_s, reply=reply) if strikes(Fault.SLOW) else reply


def _server_error(picked: int) -> Response:
    return problem(_STATUSES[picked], "SYSTEM_ERROR", "try again later")


def _pick(seed: int, number: str, nth: int) -> int:
    """One of four, the same in every run."""
    return int(draw(seed, "pick", number, nth) * len(_STATUSES))
