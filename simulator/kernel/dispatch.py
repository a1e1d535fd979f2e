"""Calls to a channel: from a request to its operation, with the faults that all channels share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec
from msgspec.structs import replace

from simulator.kernel.base import Account, Accounts, Channel
from simulator.kernel.clock import steady_s
from simulator.kernel.faults import CallKind, Fault, draw
from simulator.kernel.simulation import Simulation
from simulator.kernel.traffic import Arrival
from simulator.kit.asgi import HTML, Cut, Hang, Later, Reply, Request, Response, Route, problem

_RESPONSE_LOST = {CallKind.CREATE: Fault.CREATE_ANSWER_LOST, CallKind.CLOSE: Fault.CLOSE_ANSWER_LOST}
_STATUSES = (500, 502, 503, 504)
_PAGE = b"<!doctype html><html><head><title>Maintenance</title></head><body><h1>Back soon</h1></body></html>"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated call. `nth` counts the calls of this kind with this number, from 1."""

    account: Account
    request: Request
    now: datetime
    nth: int


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a channel. `number` reads the payment's or refund's number, before anything is verified.

    `when` distinguishes operations with the same address: the first one that accepts the request handles it.
    """

    kind: CallKind
    method: str
    pattern: str
    number: Callable[[Request], str]
    handle: Callable[[Simulation, Call], Response]
    when: Callable[[Request], bool] | None = None


class ChannelServer(Channel, Protocol):
    """A channel with its operations and the authentication of its callers."""

    operations: tuple[Operation, ...]

    def claimed_merchant(self, request: Request) -> str:
        """Return the merchant id in the request, for the record of arrivals; nothing is verified yet."""
        ...

    def authenticate(self, request: Request, accounts: Accounts, now: datetime) -> Account | Response:
        """Return the caller's account, or the error response to an unknown caller."""
        ...

    def too_many(self, call: Call) -> Response:
        """Return the response to a call beyond the rate limit."""
        ...


def routes(simulation: Simulation, channel: ChannelServer) -> list[Route]:
    """Routes of a channel's operations, with their faults."""
    by_address: dict[tuple[str, str], list[Operation]] = {}
    for operation in channel.operations:
        by_address.setdefault((operation.method, operation.pattern), []).append(operation)
    return [
        Route(method, pattern, partial(_dispatch, simulation, channel, tuple(operations)))
        for (method, pattern), operations in by_address.items()
    ]


async def _dispatch(
    simulation: Simulation, channel: ChannelServer, operations: tuple[Operation, ...], request: Request
) -> Reply:
    for operation in operations:
        if operation.when is None or operation.when(request):
            return await _handle(simulation, channel, operation, request)
    return problem(404, "NOT_FOUND", "this channel has no such call")


def switched_off(simulation: Simulation) -> Reply | None:
    """Return the reply to every request while the whole channel is down or unreachable."""
    profile = simulation.faults.profile
    if profile.blackhole:
        return Hang(seconds=profile.hang_s)
    return problem(503, "UNAVAILABLE", "the channel is down") if profile.down else None


async def _handle(simulation: Simulation, channel: ChannelServer, operation: Operation, request: Request) -> Reply:
    number, counters = operation.number(request), simulation.traffic.counters
    arrived = steady_s()
    simulation.traffic.add(Arrival(arrived, channel.claimed_merchant(request)[:64], operation.kind, number[:64]))
    counters[f"calls_{operation.kind}"] += 1
    off = switched_off(simulation)
    if off is not None:
        counters["calls_switched_off"] += 1
        return off
    now = simulation.now()
    account = channel.authenticate(request, simulation.accounts, now)
    if isinstance(account, Response):
        counters["calls_unauthenticated"] += 1
        return account
    nth = simulation.traffic.nth(operation.kind, number)
    call = Call(account=account, request=request, now=now, nth=nth)
    if not simulation.traffic.admits(account.merchant_id, simulation.faults.profile.rate_limit_per_s, arrived):
        counters["calls_rate_limited"] += 1
        return channel.too_many(call)
    return _with_faults(simulation, operation, call, number)


def _with_faults(simulation: Simulation, operation: Operation, call: Call, number: str) -> Reply:
    faults, counters, profile = simulation.faults, simulation.traffic.counters, simulation.faults.profile

    def applies(fault: Fault) -> bool:
        applied = operation.kind in profile.affected and faults.applies(fault, number, call.nth)
        counters[f"faults_{fault}"] += applied
        return applied

    if applies(Fault.ANSWERED_5XX):
        return _server_error(_pick(faults.seed, number, call.nth))
    if applies(Fault.TIMED_OUT):
        return Hang(seconds=profile.hang_s)
    if applies(Fault.HTML_ERROR):
        return Response(body=_PAGE, content_type=HTML)
    response = operation.handle(simulation, call)
    reply: Response | Cut = response
    if operation.kind in _RESPONSE_LOST and applies(_RESPONSE_LOST[operation.kind]):
        picked = _pick(faults.seed, number, call.nth)
        # An empty response (204) cannot be cut off.
        reply = _server_error(picked) if picked % 2 or not response.body else Cut(response=response, keep=0)
    elif applies(Fault.CUT):
        reply = Cut(response=response, keep=len(response.body) // 2)
    elif applies(Fault.TRUNCATED):
        reply = replace(response, body=response.body[: len(response.body) // 2])
    return Later(seconds=profile.slow_s, reply=reply) if applies(Fault.SLOW) else reply


def _server_error(picked: int) -> Response:
    return problem(_STATUSES[picked], "SYSTEM_ERROR", "try again later")


def _pick(seed: int, number: str, nth: int) -> int:
    """An index into `_STATUSES`, the same in every run."""
    return int(draw(seed, "pick", number, nth) * len(_STATUSES))
