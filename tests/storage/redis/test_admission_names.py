"""Accounts apart in Redis: their slots, what is forgotten of each, and processes of the release before beside new ones.

`older/` has the scripts of the release before, as its processes run them.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path
from time import monotonic

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import ResponseError

from core.admission import FLIGHT_S, Admitted, CallKind, Urgency, Wait, kept_share
from demo.embedded import EmbeddedRedis, free_port
from storage.redis.admission.local import WINDOW_S
from storage.redis.admission.names import calls_key, state_key
from storage.redis.admission.shared import SharedAdmission
from storage.redis.client import Call, Script
from tests.servers import eventually
from tests.storage.redis.tools import client_of

QUERY = CallKind.QUERY
RATE = 20
OLDER = Path(__file__).parent / "older"
OLDER_LOG = "nodrop:{admission}:shop:scheduled"


class OlderProcess:
    """Reserves and reports as a process of the release before does, with queries alone."""

    admit_script = Script((OLDER / "admit.lua").read_text())
    report_script = Script((OLDER / "report.lua").read_text())

    def __init__(self, redis: Redis, protocol: int = 1) -> None:
        self._redis = redis
        self._memory = {1: "nodrop:{{admission}}:", 2: "nodrop:{{admission:{0}}}:"}[protocol]
        self._account = {1: "nodrop:{{admission}}:{0}:", 2: self._memory}[protocol]
        self._numbers = count()
        self._generation = b""

    async def admit(self, account: str, rate: int, kind: CallKind, urgency: Urgency) -> Admitted | Wait:
        of_account = ("fresh", "scheduled", "refresh", "background", "queue", "asked", "stranger")
        names = (f"breaker:{kind}", f"line:{kind}", *of_account)
        keys = [self._memory.format(account) + name for name in ("generation", "quiet")]
        keys += self.keys_of(account, *names)
        reservation = f"older:{next(self._numbers)}"
        limits = ([*Urgency].index(urgency) + 1, rate, kept_share(rate))
        call: Call = (keys, [*limits, reservation, self._generation, 0, 0])
        reason, wait_ms, self._generation = await self.admit_script.run(self._redis, call)
        return Wait(wait_ms / 1000, reason.decode()) if reason else Admitted(reservation)

    async def report(self, account: str, kind: CallKind, *, answered: bool, reservation: str) -> None:
        names = (f"breaker:{kind}", f"unanswered:{kind}", "fresh", "scheduled", "refresh")
        keys = self.keys_of(account, *names)
        await self.report_script.run(self._redis, (keys, [str(int(answered)), reservation]))

    def keys_of(self, account: str, *names: str) -> list[str]:
        return [self._account.format(account) + name for name in names]


Process = SharedAdmission | OlderProcess


async def reason_of(admission: Process, account: str = "shop", *, rate: int = RATE) -> str:
    answer = await admission.admit(account, rate, QUERY, Urgency.SCHEDULED)
    return answer.reason if isinstance(answer, Wait) else "admitted"


# -- slots -------------------------------------------------------------------------------------------------------------


def test_accounts_spread_over_the_slots_of_a_cluster() -> None:
    accounts = [f"account-{number}" for number in range(100)]
    slots = [{key_slot(key.encode()) for key in (state_key(name), calls_key(name))} for name in accounts]
    assert all(len(slots_of_one) == 1 for slots_of_one in slots)
    assert len(set.union(*slots)) > 95


class ClusterOfOne(EmbeddedRedis):
    """A Redis that has all slots of a cluster, and refuses what needs two of them."""

    def _write_config(self) -> Path:
        path = super()._write_config()
        with path.open("a") as file:
            # Without a bus port it is the port and 10,000, which an outgoing connection may have.
            file.write(f"\ncluster-enabled yes\ncluster-require-full-coverage no\ncluster-port {free_port()}\n")
        return path


async def test_no_script_needs_two_slots(server_directory: Path) -> None:
    with ClusterOfOne(server_directory) as server:
        async with client_of(server.url) as client:
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")  # type: ignore[no-untyped-call]
            await eventually(lambda: _is_ok(client))
            admission = SharedAdmission(client, processes=2, has_older=True)
            assert [await reason_of(admission, account, rate=1) for account in ("a", "b", "a")] == [
                "admitted",
                "admitted",
                "rate",
            ]
            for answered in (True, False, None):
                await admission.report("a", QUERY, answered=answered, reservation="r")
            await admission.learn(["a", "b", "c"])
            assert await admission.open_breakers(["a", "b"]) == []
            with pytest.raises(ResponseError, match="CROSSSLOT"):
                await client.mget(state_key("a"), state_key("b"))


async def _is_ok(client: Redis) -> bool:
    info: object = await client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    return "cluster_state:ok" in str(info)


# -- what Redis forgets ------------------------------------------------------------------------------------------------


async def test_after_a_restart_every_account_waits_whoever_calls_which_first(redis: Redis) -> None:
    """The first call loads the scripts that are gone. The others must not take them for those of before."""
    one, other = (SharedAdmission(redis, processes=2) for _ in range(2))
    for process in (one, other):
        assert [await reason_of(process, account) for account in ("a", "b")] == ["admitted"] * 2
    await redis.script_flush()
    assert await reason_of(one, "a") == "redis_forgot"
    assert await reason_of(other, "b") == "redis_forgot"
    assert await reason_of(other, "a") == "redis_forgot"


async def test_a_process_notices_what_was_forgotten_of_an_account_that_it_never_called(redis: Redis) -> None:
    one, other = (SharedAdmission(redis, processes=2) for _ in range(2))
    assert await reason_of(one) == "admitted"
    await other.learn(["shop", "new"])
    await redis.flushall()
    assert await reason_of(other) == "redis_forgot"
    assert await reason_of(other, "new") == "admitted", "nobody has ever called it"


async def test_learning_needs_no_redis(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory) as server:
        async with client_of(server.url) as client:
            server.kill()
            await SharedAdmission(client, processes=1).learn(["shop"])


# -- two releases ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2], ids=["protocol 1", "protocol 2"])
async def processes(
    redis_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[SharedAdmission, OlderProcess]]:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(redis_url)) for _ in range(2)]
        yield SharedAdmission(clients[0], processes=2, has_older=True), OlderProcess(clients[1], request.param)


async def test_processes_of_both_releases_together_keep_the_rate_in_every_second(
    processes: tuple[SharedAdmission, OlderProcess],
) -> None:
    arrived, chance = list[float](), random.Random(1)
    end = monotonic() + 2.6

    async def work(admission: Process, urgency: Urgency) -> None:
        while monotonic() < end:
            answer = await admission.admit("shop", RATE, QUERY, urgency)
            if isinstance(answer, Admitted):
                await for_a_while(0.2 * chance.random())
                arrived.append(monotonic())
                await admission.report("shop", QUERY, answered=True, reservation=answer.reservation)
            else:
                await for_a_while(0.02)

    await asyncio.gather(*(work(process, urgency) for process in processes for urgency in [*Urgency] * 4))
    arrived.sort()
    assert all(later - first > 1.0 for first, later in zip(arrived, arrived[RATE:], strict=False))
    assert len(arrived) > RATE


async def for_a_while(seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


async def test_both_see_what_the_other_has_used_up(processes: tuple[SharedAdmission, OlderProcess]) -> None:
    new, older = processes
    assert await reason_of(older, rate=2) == "admitted"
    assert await reason_of(new, rate=2) == "admitted"
    assert [await reason_of(process, rate=2) for process in processes] == ["rate"] * 2


async def test_breakers_are_opened_for_both(processes: tuple[SharedAdmission, OlderProcess]) -> None:
    new, older = processes
    for _ in range(10):
        await new.report("shop", QUERY, answered=False)
    assert [await reason_of(process) for process in processes] == ["breaker"] * 2
    await older.report("shop", QUERY, answered=True, reservation="")
    assert await reason_of(older) == "admitted"
    await new.report("shop", QUERY, answered=True)
    assert await reason_of(new) == "admitted"


async def test_a_call_that_a_newer_process_has_used_up_is_given_back_to_the_older(
    processes: tuple[SharedAdmission, OlderProcess],
) -> None:
    """One that has seen no older process counts under the new names alone."""
    new, older = processes
    assert await reason_of(SharedAdmission(older._redis, processes=2), rate=1) == "admitted"
    assert await reason_of(new, rate=1) == "rate"
    assert await older._redis.zcard(*older.keys_of("shop", "scheduled")) == 0


async def test_calls_count_under_older_names_until_those_of_the_last_older_process_are_over(redis: Redis) -> None:
    now = 1000.0
    new = SharedAdmission(redis, processes=2, has_older=True, clock=lambda: now)

    async def counted() -> bool:
        before: int = await redis.zcard(OLDER_LOG)
        assert await reason_of(new) == "admitted"
        after: int = await redis.zcard(OLDER_LOG)
        return after > before

    assert await counted(), "it is not known yet who runs"
    new.count_with_older(are_there=False)
    assert not await counted(), "there was none"
    new.count_with_older(are_there=True)
    assert await counted()
    new.count_with_older(are_there=False)
    new.count_with_older(are_there=False)
    now += FLIGHT_S
    assert await counted(), "a call of one that was killed may be on its way"
    now += WINDOW_S
    assert not await counted()
