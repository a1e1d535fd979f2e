"""Stripe's own library."""

import asyncio
import json
from typing import Any

import stripe

from tests.oracles.library_server import serve

its: dict[str, Any] = {}
loop = asyncio.new_event_loop()


def begin(base_url: str, secret_key: str) -> None:
    its["client"] = stripe.StripeClient(secret_key, base_addresses={"api": base_url}, max_network_retries=0)


def call(service: str, method: str, *, ids: list[str] | None = None, **options: Any) -> Any:
    """Call a `service` of the library, such as `checkout.sessions`; `ids` come before the parameters."""
    found = its["client"].v1
    for name in service.split("."):
        found = getattr(found, name)
    return _plain(getattr(found, method)(*(ids or []), **options))


def call_async(service: str, method: str, *, ids: list[str] | None = None, **options: Any) -> Any:
    """Call a service with the library's asynchronous client."""
    found = its["client"].v1
    for name in service.split("."):
        found = getattr(found, name)
    return _plain(loop.run_until_complete(getattr(found, f"{method}_async")(*(ids or []), **options)))


def all_of(service: str, **options: Any) -> list[Any]:
    """Every object of a list, page by page, as the library iterates."""
    found = its["client"].v1
    for name in service.split("."):
        found = getattr(found, name)
    return [_plain(one) for one in found.list(**options).auto_paging_iter()]


def construct_event(body: str, signature: str, secret: str) -> Any:
    return _plain(stripe.Webhook.construct_event(body, signature, secret))


def _plain(value: Any) -> Any:
    return json.loads(str(value))


serve({act.__name__: act for act in (begin, call, call_async, all_of, construct_event)})
