"""Secrets of single hosts: which sign, how soon, and that no delivery fails while they change."""

from collections.abc import Awaitable, Callable, Mapping

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from core.errors import DatabaseUnavailable
from core.settings import Settings
from flows.notify import NOT_SIGNED, Notifier
from flows.signers import RELOAD_S, Signers
from storage.postgres.notify_secrets import delete_secrets, put_secrets, read_secrets, sealed_secrets
from storage.sealing import Sealer, new_master_key
from tests.channels.wire import Peer, WireRequest, WireResponse, http_bytes, read_request, respond_with, serving
from tests.flows.conftest import NOTIFY_SECRETS, FlowHarness
from tests.flows.test_notify import OK, SETTINGS, outgoing_notification

DEFAULT, SECOND = NOTIFY_SECRETS
THIRD = "whsec_" + "dGhlIHRoaXJkIHNlY3JldCwgbG9uZyBlbm91Z2g="
HOST = "127.0.0.1"
IN_FORCE_S = 10.0

Read = Callable[[], Awaitable[Mapping[str, tuple[str, ...] | None]]]


class Hosts:
    """Secrets as they are stored, and a clock."""

    def __init__(self) -> None:
        self.secrets: dict[str, tuple[str, ...] | None] = {}
        self.is_down = False
        self.reads = 0
        self.now = 1000.0

    async def read(self) -> Mapping[str, tuple[str, ...] | None]:
        self.reads += 1
        if self.is_down:
            raise DatabaseUnavailable("down")
        return dict(self.secrets)

    def notifier(self, settings: Settings = SETTINGS) -> Notifier:
        return Notifier(settings, signers=Signers(settings, self.read, clock=lambda: self.now))


def verifying_secrets(request: WireRequest, *secrets: str) -> set[str]:
    """Those of the secrets with which the request verifies."""
    return {secret for secret in secrets if verifies(request, secret)}


def verifies(request: WireRequest, secret: str) -> bool:
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_a_host_with_secrets_of_its_own_is_signed_for_with_these_alone() -> None:
    hosts = Hosts()
    hosts.secrets = {HOST: (SECOND, THIRD), "other.example": (DEFAULT,)}
    async with serving(respond_with(OK)) as merchant, hosts.notifier() as notifier:
        assert (await notifier.deliver(outgoing_notification(merchant.url))).ok
    (request,) = merchant.requests
    assert verifying_secrets(request, DEFAULT, SECOND, THIRD) == {SECOND, THIRD}
    assert len(request.headers["webhook-signature"].split(" ")) == 2


async def test_all_other_hosts_are_signed_for_with_notify_secrets() -> None:
    hosts = Hosts()
    hosts.secrets = {"other.example": (SECOND,)}
    async with serving(respond_with(OK)) as merchant, hosts.notifier() as notifier:
        await notifier.deliver(outgoing_notification(merchant.url))
    assert verifying_secrets(merchant.requests[0], DEFAULT, SECOND) == {DEFAULT}


async def test_a_change_is_in_force_within_ten_seconds_and_is_not_read_at_each_delivery() -> None:
    assert RELOAD_S < IN_FORCE_S
    hosts = Hosts()
    async with serving(respond_with(OK)) as merchant, hosts.notifier() as notifier:
        await notifier.deliver(outgoing_notification(merchant.url))
        hosts.secrets = {HOST: (SECOND,)}
        hosts.now += IN_FORCE_S
        for _ in range(5):
            await notifier.deliver(outgoing_notification(merchant.url))
    assert hosts.reads == 2
    assert [verifying_secrets(request, DEFAULT, SECOND) for request in merchant.requests] == [
        {DEFAULT},
        *[{SECOND}] * 5,
    ]


async def test_while_postgres_is_away_the_known_secrets_sign() -> None:
    hosts = Hosts()
    hosts.secrets = {HOST: (SECOND,)}
    async with serving(respond_with(OK)) as merchant, hosts.notifier() as notifier:
        await notifier.deliver(outgoing_notification(merchant.url))
        hosts.is_down, hosts.now = True, hosts.now + 60.0
        assert (await notifier.deliver(outgoing_notification(merchant.url))).ok
    assert verifying_secrets(merchant.requests[1], DEFAULT, SECOND) == {SECOND}


@pytest.mark.parametrize("is_down", [True, False])
async def test_a_host_is_never_signed_for_with_secrets_of_others(is_down: bool) -> None:
    """Secrets that were never read, or that no master key opens: the delivery fails and is repeated."""
    hosts = Hosts()
    hosts.is_down, hosts.secrets = is_down, {HOST: None}
    async with serving(respond_with(OK)) as merchant, hosts.notifier() as notifier:
        delivery = await notifier.deliver(outgoing_notification(merchant.url))
        assert (delivery.ok, delivery.status, delivery.is_final) == (False, NOT_SIGNED, False)
        assert merchant.connections == 0


async def test_secrets_that_were_opened_stay_when_a_master_key_is_missing() -> None:
    hosts = Hosts()
    hosts.secrets = {HOST: (SECOND,)}
    async with serving(respond_with(OK)) as merchant, hosts.notifier() as notifier:
        await notifier.deliver(outgoing_notification(merchant.url))
        hosts.secrets, hosts.now = {HOST: None}, hosts.now + IN_FORCE_S
        assert (await notifier.deliver(outgoing_notification(merchant.url))).ok


class Merchant:
    """A merchant that takes only what verifies with its secret."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def talk(self, peer: Peer, reader: object, writer: object) -> None:
        request = await read_request(reader)  # type: ignore[arg-type]
        peer.requests.append(request)
        status = 200 if verifies(request, self.secret) else 401
        writer.write(http_bytes(WireResponse(status, {}, b"")))  # type: ignore[attr-defined]


async def test_no_delivery_fails_while_a_secret_is_changed_under_traffic(harness: FlowHarness) -> None:
    """Two workers that read at different times, a merchant that changes at once, and deliveries at every step."""
    db, sealer, now = harness.resources.db, harness.sealer, 1000.0
    merchant = Merchant(DEFAULT)

    async def read() -> Mapping[str, tuple[str, ...] | None]:
        return await read_secrets(db, sealer)

    def notifier() -> Notifier:
        return Notifier(SETTINGS, signers=Signers(SETTINGS, read, clock=lambda: now))

    async def put(*secrets: str) -> None:
        over = next(iter(await sealed_secrets(db)), None)
        assert await put_secrets(db, sealer, HOST, secrets, over=over)

    async with serving(merchant.talk) as peer, notifier() as one, notifier() as two:

        async def traffic() -> set[str]:
            return {(await each.deliver(outgoing_notification(peer.url))).status for each in (one, two, one)}

        assert await traffic() == {"200"}
        now += RELOAD_S / 2
        await one.deliver(outgoing_notification(peer.url))
        for new, old in ((SECOND, DEFAULT), (THIRD, SECOND)):
            await put(new, old)
            for _ in range(4):  # half of the workers know it, then all
                assert await traffic() == {"200"}
                now += IN_FORCE_S / 4
            merchant.secret = new
            assert await traffic() == {"200"}
            await put(new)
            for _ in range(4):
                assert await traffic() == {"200"}
                now += IN_FORCE_S / 4
        assert not verifies(peer.requests[-1], SECOND)


async def test_a_worker_signs_with_what_is_stored(harness: FlowHarness) -> None:
    resources = harness.resources
    await put_secrets(resources.db, resources.sealer, "merchant.example", (SECOND,), over=None)
    async with Notifier.of_process(resources) as notifier:
        assert len(await notifier._signers.of("merchant.example")) == 1
    await put_secrets(
        resources.db, Sealer.from_setting(new_master_key("other")), "sealed.example", (SECOND,), over=None
    )
    assert await read_secrets(resources.db, resources.sealer) == {
        "merchant.example": (SECOND,),
        "sealed.example": None,
    }
    assert await delete_secrets(resources.db, "sealed.example")
