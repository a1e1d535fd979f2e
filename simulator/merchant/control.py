"""Routes of a merchant process: notifications, and a control API for tests, loopback only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import structlog

from simulator.kit.asgi import Request, Response, Route, json_response, problem
from simulator.kit.local_api import Refused, body_of, loopback_only
from simulator.merchant.notifications import Delivery, Effect, Merchant, MerchantFaults, Violation

_log = structlog.get_logger("simulator")


class Secrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    secrets: tuple[str, ...]


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """Effects of notifications at the merchant, and violations of their rules."""

    effects: tuple[Effect, ...] = ()
    violations: tuple[Violation, ...] = ()
    counters: dict[str, int] = {}


def routes(merchant: Merchant) -> list[Route]:
    """All routes; only the first one is for nodrop."""
    table: list[tuple[str, str, Callable[[Merchant, Request], Awaitable[Response]]]] = [
        ("GET", "/healthz", _health),
        ("PUT", "/control/secrets", _put_secrets),
        ("GET", "/control/faults", _get_faults),
        ("PUT", "/control/faults", _put_faults),
        ("GET", "/control/effects", _effects),
        ("GET", "/control/deliveries", _deliveries),
        ("POST", "/control/reset", _reset),
    ]
    control = [Route(method, path, loopback_only(partial(handler, merchant))) for method, path, handler in table]
    redirect_targets = [Route(method, "/elsewhere", merchant.redirect_targets) for method in ("GET", "POST")]
    return [Route("POST", "/notifications", merchant.receive), *redirect_targets, *control]


async def _health(_: Merchant, __: Request) -> Response:
    return json_response({"status": "ok"})


async def _put_secrets(merchant: Merchant, request: Request) -> Response:
    secrets = body_of(request, Secrets).secrets
    try:
        merchant.use_secrets(secrets)
    except ValueError as error:
        raise Refused(problem(400, "INVALID_PARAMETER", str(error))) from error
    _log.info("secrets_changed", count=len(secrets))
    return json_response({"count": len(secrets)})


async def _get_faults(merchant: Merchant, _: Request) -> Response:
    return json_response(merchant.faults)


async def _put_faults(merchant: Merchant, request: Request) -> Response:
    """Replace the whole profile: a fault that is not named is off."""
    merchant.faults = body_of(request, MerchantFaults)
    return json_response(merchant.faults)


async def _effects(merchant: Merchant, _: Request) -> Response:
    return json_response(
        Effects(
            effects=tuple(merchant.effects.values()),
            violations=tuple(merchant.violations),
            counters=dict(sorted(merchant.counters.items())),
        )
    )


async def _deliveries(merchant: Merchant, _: Request) -> Response:
    deliveries: list[Delivery] = list(merchant.deliveries)
    return json_response(deliveries)


async def _reset(merchant: Merchant, _: Request) -> Response:
    merchant.reset()
    return json_response({})
