"""Deliver notifications to the merchant's order service: Standard Webhooks, the same id and bytes in every delivery.

Only a 2xx is a success. Redirects are failures, 410 ends it, `Retry-After` is honoured, everything else is tried again
after n² minutes; after the last attempt it is a dead letter, which an operator can send again. The result of each
attempt is kept with the notification. Nothing is sent to an endpoint that a person has paused.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

import httpx
import structlog
from msgspec import Struct
from msgspec.structs import replace
from standardwebhooks import Webhook

from core import jobs
from core.backoff import NextTry
from core.deliveries import Attempt, endpoint_of, readable
from core.errors import ConfigurationError, DatabaseUnavailable, InvalidRequest
from core.rollups import CALL_BOUNDS_S, TALLIES_MAX, Tally
from core.settings import Settings
from flows.commit import arm_jobs
from flows.egress import Net, check_notify_url, resolve
from flows.merchant_hosts import MerchantHosts
from flows.merchant_http import MerchantHttp, Response
from flows.signers import Signers
from runtime.clock import Clock
from runtime.metrics import deliveries_of, delivery_seconds
from runtime.resources import Resources
from storage.postgres import notifications
from storage.postgres.notifications import Outgoing
from storage.postgres.notify_secrets import read_secrets

PAUSED = "paused"
"""Result of a notification that was not sent, because a person has paused its endpoint."""

NOT_SIGNED = "not_signed"
"""Status of a delivery that did not begin, because the secrets of its host are not there."""

URLS_MAX = 256
"""URLs that are not read anew for each notification: a merchant has one or two."""

RETRY_AFTER_MAX_S = 86_400.0
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": "nodrop/0.1",
    "Content-Type": "application/json",
}

log = structlog.get_logger()


class Delivery(Struct, frozen=True, kw_only=True):
    """Result of one delivery. `status` is the HTTP status or a short word; `is_final`: another try is pointless.

    `answer` is the beginning of the response's body.
    """

    ok: bool
    status: str
    is_final: bool = False
    retry_after_s: float = 0.0
    answer: bytes = b""


class Notifier:
    """Signs and sends. One for each worker process."""

    def __init__(self, settings: Settings, clock: Clock | None = None, signers: Signers | None = None) -> None:
        """`clock` None: the system's. `signers` None: NOTIFY_SECRETS signs for every host."""
        self._clock = clock or Clock()
        self._signers = signers or Signers(settings)
        self._allow_nets = settings.allowed_nets()
        self._read_url = lru_cache(URLS_MAX)(partial(_read_url, self._allow_nets))
        self._timeout_s = settings.notify_timeout_s
        self.hosts = MerchantHosts(settings.notify_timeout_s)
        self._http = MerchantHttp(settings)

    @classmethod
    def of_process(cls, resources: Resources) -> Self:
        """The notifier of a worker process, which signs with the secrets of single hosts too."""
        settings = resources.settings
        signers = Signers(settings, partial(read_secrets, resources.db, resources.sealer))
        return cls(settings, resources.clock, signers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def deliver(self, outgoing: Outgoing) -> Delivery:
        """One delivery within the total deadline. Never raises for a fault of the other side."""
        try:
            parts, url = self._read_url(outgoing.url)
        except (InvalidRequest, httpx.InvalidURL, ValueError):  # httpx refuses more: 256.1.1.1, an xn-- that is none
            return Delivery(ok=False, status="bad_url", is_final=True)
        try:
            headers = self._sign(outgoing, await self._signers.of(signing_host(url)))
        except (ConfigurationError, DatabaseUnavailable):
            return Delivery(ok=False, status=NOT_SIGNED)
        # Others may have taken the last place while the secrets were read.
        if wait_s := await self.hosts.wait_for_place(parts.hostname or ""):
            return Delivery(ok=False, status=notifications.PARKED, retry_after_s=wait_s)
        with self.hosts.delivery(parts.hostname or "") as under_way:
            try:
                async with asyncio.timeout(self._timeout_s):
                    port = parts.port or (443 if parts.scheme == "https" else 80)
                    addresses = await resolve(
                        parts.hostname or "", port, allow_nets=self._allow_nets, scheme=parts.scheme
                    )
                    if not addresses:
                        return Delivery(ok=False, status="address_refused")
                    response = await self._post(outgoing, url, addresses, headers)
                under_way.is_answered = True
            except (TimeoutError, httpx.TimeoutException):
                return Delivery(ok=False, status=notifications.TIMED_OUT)
            except Exception as error:  # noqa: BLE001 - whatever a stranger sends is a failure with a back-off and an end
                return Delivery(ok=False, status=type(error).__name__)
            # Past the deadline if need be: the status counts, however slow the body is.
            answer = await self._http.drain(response)
            return _delivery(*response.head, answer, self._clock.now())

    async def _post(
        self, outgoing: Outgoing, url: httpx.URL, addresses: Sequence[str], signature: Mapping[str, str]
    ) -> Response:
        return await self._http.post(
            url,
            addresses,
            headers={**HEADERS, **signature},
            body=outgoing.body,
            timeout_s=self._timeout_s,
            is_busy=self.hosts.is_under_way,
        )

    def _sign(self, outgoing: Outgoing, signers: Sequence[Webhook]) -> dict[str, str]:
        now = self._clock.now()
        body = outgoing.body.decode()
        return {
            "webhook-id": outgoing.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(outgoing.id, now, body) for signer in signers),
        }


def _read_url(allow_nets: Sequence[Net], url: str) -> tuple[SplitResult, httpx.URL]:
    """Raises InvalidRequest, httpx.InvalidURL, ValueError."""
    return check_notify_url(url, allow_nets=allow_nets), httpx.URL(url)


def signing_host(url: httpx.URL) -> str:
    """The host of a URL as its secrets are stored: in lower case, an international name in its ASCII form."""
    return url.raw_host.decode("ascii").removesuffix(".")


async def push_notification(resources: Resources, notifier: Notifier, notification_id: str, arm_no: int) -> str:
    """The job: deliver it, unless it was delivered, superseded or given up meanwhile. Returns the status."""
    outgoing = await notifications.claim(resources.db, notification_id, resources.settings.lease_s, arm_no=arm_no)
    return "stale" if outgoing is None else await push_claimed(resources, notifier, outgoing)


async def push_claimed(resources: Resources, notifier: Notifier, outgoing: Outgoing) -> str:
    """A notification whose lease is ours."""
    if outgoing.is_paused:
        await notifications.hold(resources.db, outgoing)
        return PAUSED
    wait_s = await notifier.hosts.wait_for_place(_host_of(outgoing.url))
    if wait_s:
        return await _postpone(resources, notifier, outgoing, wait_s)
    began_at, began = resources.clock.now(), monotonic()
    delivery = await notifier.deliver(outgoing)
    if delivery.status == notifications.PARKED:
        return await _postpone(resources, notifier, outgoing, delivery.retry_after_s)
    seconds = monotonic() - began
    delivery_seconds.observe(seconds)
    _count(resources, outgoing.url, delivery, seconds)
    record = Attempt(
        no=outgoing.attempt,
        at=began_at,
        latency_ms=round(seconds * 1000),
        status=delivery.status,
        answer=readable(delivery.answer),
        is_manual=outgoing.is_manual,
    )
    await _end(resources, outgoing, delivery, record)
    await _resume(resources, notifier, outgoing.url)
    return delivery.status


async def _end(resources: Resources, outgoing: Outgoing, delivery: Delivery, record: Attempt) -> None:
    """Commit what came of it, in one statement."""
    db = resources.db
    log.info(
        "notification_delivered" if delivery.ok else "notification_not_delivered",
        order_no=outgoing.order_no,
        notification_id=outgoing.id,
        type=outgoing.type,
        attempt=outgoing.attempt,
        status=delivery.status,
    )
    next_try = _next_try(resources, outgoing)
    is_dead = not delivery.ok and (delivery.is_final or next_try.is_exhausted)
    deliveries_of("dead" if is_dead else "delivered" if delivery.ok else "failed").inc()
    if delivery.ok:
        await notifications.finish(db, outgoing.id, delivery.status, arm_no=outgoing.arm_no, record=record)
    elif is_dead:
        is_dead = await notifications.give_up(db, outgoing, delivery.status, record=record)
        event = "notification_dead" if is_dead else "notification_not_resent"
        log.error(event, order_no=outgoing.order_no, notification_id=outgoing.id, status=delivery.status)
    else:
        delay_s = max(next_try.delay_s, delivery.retry_after_s)
        await _reschedule(resources, outgoing, replace(next_try, delay_s=delay_s), delivery.status, record)


def _count(resources: Resources, url: str, delivery: Delivery, seconds: float) -> None:
    """Count a delivery for the roll-ups."""
    tallies = resources.tallies
    # A merchant whose URLs name the order has one endpoint for each: those that come after many count together.
    endpoint = endpoint_of(url)
    is_known = len(tallies) < TALLIES_MAX or Tally("endpoint", endpoint, "tries") in tallies
    name = endpoint if is_known else ""
    tallies[Tally("endpoint", name, "tries")] += 1
    tallies[Tally("endpoint", name, f"try_s:{bisect_right(CALL_BOUNDS_S, seconds)}")] += 1
    if not delivery.ok:
        tallies[Tally("endpoint", name, "tries_failed")] += 1


async def _postpone(resources: Resources, notifier: Notifier, outgoing: Outgoing, wait_s: float) -> str:
    """Its host takes none now. It is due again when the host may, with the same attempt."""
    deliveries_of(notifications.PARKED).inc()
    await _reschedule(resources, outgoing, _next_try(resources, outgoing, wait_s=wait_s), notifications.PARKED)
    await _park(resources, notifier, outgoing.url, wait_s)
    return notifications.PARKED


async def _park(resources: Resources, notifier: Notifier, url: str, wait_s: float) -> None:
    """Remember that notifications wait for this host. If it hangs, postpone all that is due for this URL; the oldest
    comes first, as a probe.
    """
    notifier.hosts.parked(_host_of(url), url)
    if not notifier.hosts.is_hanging(_host_of(url)):
        return
    later_s = wait_s + 2 * resources.settings.notify_timeout_s
    probe = await notifications.park(resources.db, url, wait_s=wait_s, later_s=later_s)
    if probe is not None:
        await arm_jobs(resources, [jobs.push_notification(*probe, wait_s)])


async def _resume(resources: Resources, notifier: Notifier, url: str) -> None:
    """After a delivery: some of the notifications that wait for this host are due at once."""
    if notifier.hosts.is_full(_host_of(url)):
        return  # those that are under way end too
    wait_s = notifier.hosts.wait_s(_host_of(url))
    if wait_s:
        await _park(resources, notifier, url, wait_s)
        return
    urls, room = notifier.hosts.resumable(_host_of(url))
    if not urls:
        return
    if notifier.hosts.is_back(_host_of(url)):
        await notifications.rejoin(resources.db, urls)
    rows = await notifications.resume(resources.db, urls, limit=room, grace_s=resources.settings.sweep_grace_s)
    if len(rows) < room:
        notifier.hosts.resumed(_host_of(url))
    await arm_jobs(resources, [jobs.push_notification(*row) for row in rows])


def _next_try(resources: Resources, outgoing: Outgoing, *, wait_s: float | None = None) -> NextTry:
    return resources.rules.backoff.next_try(outgoing.attempt, outgoing.id, wait_s=wait_s)


async def _reschedule(
    resources: Resources, outgoing: Outgoing, next_try: NextTry, status: str, record: Attempt | None = None
) -> None:
    arm_no = await notifications.reschedule(
        resources.db, outgoing, attempt=next_try.attempt, delay_s=next_try.delay_s, status=status, record=record
    )
    if arm_no is not None:
        await arm_jobs(resources, [jobs.push_notification(outgoing.id, arm_no, next_try.delay_s)])


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _delivery(status: int, headers: Sequence[tuple[bytes, bytes]], answer: bytes, now: datetime) -> Delivery:
    if httpx.codes.is_success(status):
        return Delivery(ok=True, status=str(status), answer=answer)
    retry_after = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    return Delivery(
        ok=False,
        status=str(status),
        is_final=status == httpx.codes.GONE,
        retry_after_s=_retry_after_s(retry_after.decode("latin-1"), now),
        answer=answer,
    )


def _retry_after_s(text: str, now: datetime) -> float:
    """Seconds of a `Retry-After` (a number or an HTTP date), at most a day; 0 for anything else."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_MAX_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    if at.tzinfo is None:
        return 0.0
    return min(max(0.0, (at - now).total_seconds()), RETRY_AFTER_MAX_S)
