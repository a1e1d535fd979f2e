import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic, time
from types import SimpleNamespace

import pytest
from fakeredis import FakeServer
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.admission import FLIGHT_S, Admission, Admitted, CallKind, Urgency, Wait, is_within_rate, kept_share
from demo.embedded import EmbeddedRedis
from storage.redis.admission.local import WINDOW_S, LocalAdmission
from storage.redis.admission.names import calls_key, state_key
from storage.redis.admission.script import COUNTED_S, PACE_S, SPAN
from storage.redis.admission.shared import SharedAdmission
from tests.storage.redis.tools import calls_of, client_of, fake_client_of, frozen, server_ms

FRESH, SCHEDULED, REFRESH, BACKGROUND, STRANGER = Urgency
QUERY, CREATE = CallKind.QUERY, CallKind.CREATE
STATE, CALLS = state_key("shop"), calls_key("shop")


class Clock:
    """A clock that stands until it is moved, or moves by `steps` when it is read."""

    def __init__(self, *steps: float) -> None:
        self.now = 1000.0
        self._steps = list(steps)

    def __call__(self) -> float:
        if self._steps:
            self.now += self._steps.pop(0)
        return self.now


@pytest.fixture
def shared(redis: Redis) -> SharedAdmission:
    return SharedAdmission(redis, processes=4)


async def admitted(admission: Admission, urgency: Urgency, *, rate: int = 10, tries: int = 30) -> int:
    """Number of these calls that are admitted at once. Each ends at once and tells the breaker of queries nothing."""
    answers = [await admission.admit("shop", rate, QUERY, urgency) for _ in range(tries)]
    reservations = [answer.reservation for answer in answers if isinstance(answer, Admitted)]
    for reservation in reservations:
        await admission.report("shop", CREATE, answered=True, reservation=reservation)
    return len(reservations)


async def number_of(redis: Redis, field: str) -> float:
    """A number in the state of the account."""
    return float(await redis.hget(STATE, field) or 0)  # type: ignore[misc]


async def set_number(redis: Redis, field: str, number: float) -> None:
    await redis.hset(STATE, field, str(number))  # type: ignore[misc]


async def wait_of(admission: Admission, urgency: Urgency = SCHEDULED, *, rate: int = 10) -> Wait:
    answer = await admission.admit("shop", rate, QUERY, urgency)
    assert isinstance(answer, Wait)
    return answer


async def test_calls_under_way_and_of_the_last_second_are_in_use(shared: SharedAdmission, redis: Redis) -> None:
    clock = Clock()
    local = LocalAdmission(1, clock=clock)
    for admission in (shared, local):
        first, *_ = [await admission.admit("shop", 10, QUERY, urgency) for urgency in (FRESH, SCHEDULED, REFRESH)]
        assert isinstance(first, Admitted)
        await admission.report("shop", QUERY, answered=True, reservation=first.reservation)
        assert await admission.calls_in_use(["shop", "other"]) == {"shop": 3, "other": 0}
    for call, score in await redis.zrange(CALLS, 0, -1, withscores=True):
        await redis.zadd(CALLS, {call: score - (FLIGHT_S + COUNTED_S) * 1000 - 1})
    assert await shared.calls_in_use(["shop"]) == {"shop": 0}
    assert await shared.calls_in_use([]) == {}
    clock.now += FLIGHT_S + WINDOW_S
    assert await local.calls_in_use(["shop"]) == {"shop": 0}


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_the_share_of_fresh_calls_is_lent_to_scheduled_ones_alone() -> None:
    made = Counter({SCHEDULED: 8})
    lent = [urgency for urgency in Urgency if is_within_rate(10, urgency, made, is_fresh_idle=True)]
    kept = [urgency for urgency in Urgency if is_within_rate(10, urgency, made)]
    assert (lent, kept) == ([FRESH, SCHEDULED, STRANGER], [FRESH, STRANGER])


@given(rate=st.integers(1, 60), wanted=st.lists(st.sampled_from(Urgency), max_size=200))
def test_the_rate_is_never_exceeded_and_an_unused_share_is_always_admitted(
    rate: int, wanted: Sequence[Urgency]
) -> None:
    made: Counter[Urgency] = Counter()
    for urgency in wanted:
        if is_within_rate(rate, urgency, made):
            made[urgency] += 1
        else:
            of_share = made[SCHEDULED] if urgency is SCHEDULED else made[FRESH] + made[STRANGER]
            assert urgency in (REFRESH, BACKGROUND) or of_share >= kept_share(rate)
    assert made.total() <= rate


@pytest.mark.parametrize(("rate", "share"), [(1, 0), (2, 0), (3, 1), (9, 1), (10, 2), (50, 10)])
def test_a_fifth_of_the_rate_is_kept_twice_unless_the_rate_is_tiny(rate: int, share: int) -> None:
    assert kept_share(rate) == share


@pytest.mark.parametrize("seed", range(8))
async def test_redis_decides_by_the_same_rule(shared: SharedAdmission, seed: int) -> None:
    chance = random.Random(seed)
    rate = chance.choice([1, 2, 3, 4, 7, 20])
    made: Counter[Urgency] = Counter()
    began_at = monotonic()
    for _ in range(60):
        urgency = chance.choice([FRESH, SCHEDULED, REFRESH])
        expected = is_within_rate(rate, urgency, made)
        answer = await shared._try_admit("shop", rate, QUERY, urgency, past_breaker=False)
        if monotonic() - began_at > 1:
            break  # the first calls have left the window
        assert isinstance(answer, Admitted) is expected
        made[urgency] += expected


# -- the rate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag_s", [0.0, 0.4], ids=["at once", "late"])
async def test_two_processes_together_keep_the_rate_in_every_second(redis_url: str, lag_s: float) -> None:
    """Counted when the calls arrive, which may be any time after they were admitted; also when no caller waits for as
    long as it should.
    """
    rate, arrived, chance = 20, list[float](), random.Random(1)
    end = monotonic() + 2.6

    async def work(admission: SharedAdmission, urgency: Urgency) -> None:
        while monotonic() < end:
            answer = await admission.admit("shop", rate, QUERY, urgency)
            if isinstance(answer, Admitted):
                await for_a_while(lag_s * chance.random())
                arrived.append(monotonic())
                await admission.report("shop", QUERY, answered=True, reservation=answer.reservation)
            else:
                await for_a_while(0.02)

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(redis_url)) for _ in range(2)]
        workers = [SharedAdmission(client, processes=2) for client in clients]
        await asyncio.gather(*(work(worker, urgency) for worker in workers for urgency in [*Urgency] * 4))
    arrived.sort()
    assert all(later - first > 1.0 for first, later in zip(arrived, arrived[rate:], strict=False))
    assert len(arrived) > rate


async def for_a_while(seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


@pytest.fixture
def _standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts take long in fakeredis on a busy machine: its clock stands, so no call leaves the window meanwhile."""
    now = time()
    monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", SimpleNamespace(time=lambda: now))


@pytest.mark.usefixtures("_standing_clock")
async def test_refreshes_starve_neither_fresh_nor_scheduled_calls(shared: SharedAdmission) -> None:
    assert await admitted(shared, FRESH, tries=1) == 1
    assert await admitted(shared, REFRESH) == 6
    assert await admitted(shared, SCHEDULED, tries=3) == 2
    assert await admitted(shared, FRESH, tries=3) == 1


@pytest.mark.usefixtures("_standing_clock")
async def test_scheduled_calls_leave_room_for_fresh_ones(shared: SharedAdmission) -> None:
    assert await admitted(shared, FRESH, tries=1) == 1
    assert await admitted(shared, SCHEDULED, tries=20) == 8
    assert await admitted(shared, FRESH, tries=2) == 1


@pytest.mark.usefixtures("_standing_clock")
async def test_a_backlog_uses_the_share_of_fresh_calls_while_there_are_none(
    redis: Redis, shared: SharedAdmission
) -> None:
    assert await admitted(shared, SCHEDULED, tries=20) == 10
    assert (await wait_of(shared, FRESH)).seconds <= COUNTED_S * 1.2 + 0.01
    await redis.delete(CALLS)  # they leave the window
    assert await admitted(shared, SCHEDULED, tries=20) == 8, "a fresh call was wanted a moment ago"
    assert 8_000 < await number_of(redis, "fresh_until") - await server_ms(redis) <= 10_000


async def test_a_call_counts_until_a_second_after_its_end(redis: Redis, shared: SharedAdmission) -> None:
    """Under way it may arrive at any moment, however long ago it was admitted."""
    answer = await shared.admit("shop", 1, QUERY, FRESH)
    assert isinstance(answer, Admitted)
    (reservation,) = await redis.zrange(CALLS, 0, -1)
    await redis.zadd(CALLS, {reservation: SPAN + await server_ms(redis) + 1})  # as if it had begun five seconds ago
    assert 0 < (await wait_of(shared, rate=1)).seconds <= COUNTED_S + 0.01
    await shared.report("shop", QUERY, answered=True, reservation=answer.reservation)
    ended_ms = await redis.zscore(CALLS, reservation)
    assert ended_ms is not None
    ended_ms -= SPAN
    wait_ms = (await wait_of(shared, rate=1)).seconds * 1000
    assert ended_ms + 1011 - await server_ms(redis) <= wait_ms + 1
    await redis.zadd(CALLS, {reservation: SPAN + ended_ms - 1011})
    assert await admitted(shared, SCHEDULED, rate=1, tries=1) == 1


async def test_a_call_that_was_not_made_gives_its_reservation_back(redis: Redis, shared: SharedAdmission) -> None:
    answer = await shared.admit("shop", 1, QUERY, FRESH)
    assert isinstance(answer, Admitted)
    await shared.report("shop", QUERY, answered=None, reservation=answer.reservation)
    assert await redis.zcard(CALLS) == 0
    assert await admitted(shared, FRESH, rate=1, tries=1) == 1


async def test_a_call_whose_end_nobody_reports_counts_for_seconds_only(redis: Redis, shared: SharedAdmission) -> None:
    """Its process was killed."""
    await shared.admit("shop", 1, QUERY, FRESH)
    ((_, latest_ms),) = await redis.zrange(CALLS, 0, -1, withscores=True)
    assert 0 < latest_ms - SPAN - await server_ms(redis) <= FLIGHT_S * 1000


async def test_accounts_do_not_share_a_rate(shared: SharedAdmission) -> None:
    assert await admitted(shared, SCHEDULED, rate=1, tries=2) == 1
    assert isinstance(await shared.admit("other", 1, QUERY, SCHEDULED), Admitted)


@pytest.mark.usefixtures("_standing_clock")
@pytest.mark.parametrize(("is_fresh_wanted", "calls"), [(False, 10), (True, 8)], ids=["whole rate", "share kept"])
async def test_a_refused_backlog_gets_one_time_after_another(
    redis: Redis, shared: SharedAdmission, *, is_fresh_wanted: bool, calls: int
) -> None:
    """At the rate that is left beside the fresh share, while that is kept."""
    await admitted(shared, FRESH, tries=int(is_fresh_wanted))
    await admitted(shared, SCHEDULED, tries=10)
    times: list[tuple[float, float]] = []  # the earliest and the latest that each may mean, however long the call took
    for _ in range(100):
        began_at = await server_ms(redis) / 1000
        wait_s = (await wait_of(shared)).seconds
        assert wait_s > 0
        times.append((began_at + wait_s - 0.002, await server_ms(redis) / 1000 + wait_s + 0.002))
    gap_s = PACE_S / calls
    for earlier, later in pairwise(times):
        assert later[0] - earlier[1] <= gap_s <= later[1] - earlier[0]


async def test_background_calls_of_all_processes_have_a_fifth_of_the_rate(redis_url: str) -> None:
    """One after the other, however many wait, and each that is refused gets another time."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(redis_url)) for _ in range(2)]
        workers = [SharedAdmission(client, processes=2) for client in clients]
        began_at = monotonic()
        assert await admitted(workers[0], BACKGROUND, rate=10, tries=1) == 1
        waits = [(await wait_of(worker, BACKGROUND, rate=10)).seconds for worker in workers * 5]
        assert (await wait_of(workers[0], BACKGROUND, rate=10)).reason == "share"
        assert await admitted(workers[1], REFRESH, rate=10, tries=3) == 3
    gap_s = 5 * WINDOW_S / 10
    assert all(later - earlier > gap_s - 0.1 for earlier, later in pairwise(waits))
    assert 9 * gap_s - (monotonic() - began_at) <= waits[-1] <= 11 * gap_s


@pytest.mark.usefixtures("_standing_clock")
async def test_a_background_call_is_admitted_after_its_gap(redis: Redis, shared: SharedAdmission) -> None:
    assert await admitted(shared, BACKGROUND, rate=10) == 1
    await set_number(redis, "background", await server_ms(redis))
    assert await admitted(shared, BACKGROUND, rate=10) == 1
    await set_number(redis, "background", await server_ms(redis) + 3_600_000)  # before the clock was set back
    assert await admitted(shared, BACKGROUND, rate=10) == 1


async def test_background_calls_have_a_fifth_of_a_process_without_redis_too() -> None:
    clock = Clock()
    local, made = LocalAdmission(1, clock=clock), 0
    for _ in range(2200):
        made += await admitted(local, BACKGROUND, rate=10, tries=2)
        clock.now += 0.01
    assert made == 22 / (5 * WINDOW_S / 10)


async def test_strangers_have_half_of_the_fresh_share_and_never_more(redis: Redis, shared: SharedAdmission) -> None:
    """Anybody can cause these calls. Also while everything else is used up, one is made now and then."""
    assert await admitted(shared, FRESH, tries=1) == 1
    assert await admitted(shared, SCHEDULED, tries=20) == 8
    assert await admitted(shared, STRANGER, tries=3) == 1
    assert (await wait_of(shared, STRANGER)).reason == "share"
    gap_ms = 10 * WINDOW_S / 10 * 1000
    left_ms = await number_of(redis, "stranger") - await server_ms(redis)
    assert gap_ms - 1000 < left_ms <= gap_ms


async def test_strangers_have_their_share_of_a_process_without_redis_too() -> None:
    clock = Clock()
    local, made = LocalAdmission(1, clock=clock), 0
    for _ in range(2200):
        made += await admitted(local, STRANGER, rate=10, tries=2)
        clock.now += 0.01
    assert made == 22 / (10 * WINDOW_S / 10)


async def test_a_short_wait_happens_inside_for_a_person_and_never_for_a_job(
    redis: Redis, shared: SharedAdmission
) -> None:
    await shared.admit("shop", 1, QUERY, REFRESH)
    await redis.zadd(CALLS, {"made before": 3 * SPAN + await server_ms(redis) - 790})
    await redis.zremrangebyrank(CALLS, 1, -1)  # what is left leaves the window within a quarter of a second
    assert 0 < (await wait_of(shared, SCHEDULED, rate=1)).seconds <= 0.25
    assert isinstance(await shared.admit("shop", 1, QUERY, FRESH), Admitted)
    assert (await wait_of(shared, FRESH, rate=1)).seconds > 0.25


async def test_calls_refused_together_return_at_different_times(shared: SharedAdmission) -> None:
    await admitted(shared, FRESH)
    waits = [(await wait_of(shared, FRESH)).seconds for _ in range(10)]
    assert len({round(wait, 2) for wait in waits}) >= 5


async def test_a_clock_set_back_by_an_hour_blocks_no_call_for_an_hour(redis: Redis, shared: SharedAdmission) -> None:
    await admitted(shared, FRESH)
    calls = await redis.zrange(CALLS, 0, -1)
    await redis.zadd(CALLS, dict.fromkeys(calls, SPAN + await server_ms(redis) + 3_600_000))
    assert (await wait_of(shared, FRESH)).seconds <= WINDOW_S * 1.2 + 0.01
    assert max(score for _, score in await redis.zrange(CALLS, 0, -1, withscores=True)) <= SPAN + await server_ms(redis)


async def test_a_redis_too_slow_for_reservations_counts_as_down(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.redis.admission.shared.SLOW_S", -1.0)
    clock = Clock()
    slow = SharedAdmission(redis, processes=4, clock=clock)
    assert await admitted(slow, FRESH, tries=2) == 2
    assert (await wait_of(slow, FRESH)).reason == "changing_over"
    for _ in range(3):
        clock.now += WINDOW_S
        assert await admitted(slow, FRESH, rate=4, tries=2) == 1  # its own part, and it goes on


# -- callers together --------------------------------------------------------------------------------------------------


async def test_callers_of_several_accounts_share_one_round_trip(real_redis: Redis) -> None:
    shared = SharedAdmission(real_redis, processes=4)
    accounts = ["shop", "other"]
    for account in accounts:
        await shared.admit(account, 1, QUERY, FRESH)  # the server knows the scripts now
    before = await calls_of(real_redis, "evalsha")
    answers = await asyncio.gather(*(shared.admit(account, 5, QUERY, SCHEDULED) for account in accounts * 20))
    assert await calls_of(real_redis, "evalsha") - before == len(accounts)
    made = [Counter(type(answer) for answer in answers[number::2]) for number in range(len(accounts))]
    assert made == [{Admitted: 4, Wait: 16}] * 2  # one was made before


@given(st.lists(st.lists(st.sampled_from([FRESH, SCHEDULED, REFRESH]), min_size=1, max_size=30), max_size=12))
def test_a_batch_decides_as_its_calls_would_one_after_the_other(batches: list[list[Urgency]]) -> None:
    """In random batches, with logs that are cleared only when they are full."""

    async def run() -> None:
        async with fake_client_of(FakeServer(version=(7,))) as redis:
            shared, made, is_fresh_idle = SharedAdmission(redis, processes=4), Counter[Urgency](), True
            began_at = monotonic()
            for batch in batches:
                answers = await asyncio.gather(
                    *(shared._try_admit("shop", 20, QUERY, urgency, past_breaker=False) for urgency in batch)
                )
                if monotonic() - began_at > 1:
                    break  # the first calls may have left the window
                expected = []
                for urgency in batch:
                    is_fresh_idle = is_fresh_idle and urgency is not FRESH
                    expected.append(is_within_rate(20, urgency, made, is_fresh_idle=is_fresh_idle))
                    made[urgency] += expected[-1]
                assert [isinstance(answer, Admitted) for answer in answers] == expected

    asyncio.run(run())


async def test_a_call_that_was_not_made_makes_room_in_the_batch_of_its_report(
    shared: SharedAdmission,
) -> None:
    first = await shared.admit("shop", 1, QUERY, FRESH)
    assert isinstance(first, Admitted)
    reported = shared.report("shop", QUERY, answered=None, reservation=first.reservation)
    _, second = await asyncio.gather(reported, shared.admit("shop", 1, QUERY, FRESH))
    assert isinstance(second, Admitted)


# -- the breaker -------------------------------------------------------------------------------------------------------


async def unanswered(admission: Admission, times: int = 10) -> None:
    for _ in range(times):
        await admission.report("shop", QUERY, answered=False)


async def pass_time(redis: Redis, seconds: float) -> None:
    """As if the breaker's times lay so much further back."""
    for field in ("until:query", "probe:query"):
        if await redis.hget(STATE, field):  # type: ignore[misc]
            await redis.hincrby(STATE, field, -round(seconds * 1000))  # type: ignore[misc]


async def test_ten_unanswered_calls_in_a_row_open_the_breaker_for_all(redis: Redis, shared: SharedAdmission) -> None:
    await unanswered(shared, 9)
    assert await admitted(shared, FRESH, tries=1) == 1
    await unanswered(shared, 1)
    other = await wait_of(SharedAdmission(redis, processes=4), FRESH)
    assert other.reason == "breaker"
    assert 4.5 < other.seconds <= 6


async def test_each_kind_of_call_has_a_breaker_of_its_own(redis: Redis, shared: SharedAdmission) -> None:
    """While queries fail, payments are created and closed; an answer to a creation closes no breaker of queries."""
    await unanswered(shared)
    assert isinstance(await shared.admit("shop", 10, CREATE, FRESH), Admitted)
    await shared.report("shop", CREATE, answered=True)
    assert (await wait_of(shared)).reason == "breaker"
    assert await shared.open_breakers(["shop", "other"]) == [("shop", QUERY)]
    await shared.report("shop", QUERY, answered=True)
    assert await shared.open_breakers(["shop"]) == []


async def test_a_call_that_may_pass_the_breaker_is_held_back_by_the_rate_alone(shared: SharedAdmission) -> None:
    await unanswered(shared)
    answers = [await shared.admit("shop", 3, QUERY, FRESH, past_breaker=True) for _ in range(4)]
    assert [type(answer) for answer in answers] == [Admitted, Admitted, Wait, Wait]
    assert (await wait_of(shared, FRESH)).reason == "breaker"
    await shared.report("shop", QUERY, answered=True)
    assert isinstance(await shared.admit("shop", 10, QUERY, FRESH), Admitted)


async def test_an_answer_in_between_keeps_the_breaker_closed(shared: SharedAdmission) -> None:
    for _ in range(3):
        await unanswered(shared, 9)
        await shared.report("shop", QUERY, answered=True)
    assert await admitted(shared, FRESH, tries=1) == 1


async def test_unanswered_calls_over_more_than_a_minute_do_not_open_it(redis: Redis, shared: SharedAdmission) -> None:
    await unanswered(shared, 9)
    times = str(await redis.hget(STATE, "unanswered:query"), "ascii").split()  # type: ignore[misc]
    first = str(await server_ms(redis) - 60_100)
    await redis.hset(STATE, "unanswered:query", " ".join([first, *times[1:]]))  # type: ignore[misc]
    await unanswered(shared, 1)
    assert await admitted(shared, FRESH, tries=1) == 1


async def test_half_open_lets_one_probe_through_and_its_answer_closes(redis: Redis, shared: SharedAdmission) -> None:
    await unanswered(shared)
    await pass_time(redis, 5)
    assert await admitted(shared, FRESH, tries=5) == 1
    assert (await wait_of(shared)).reason == "breaker"
    await shared.report("shop", QUERY, answered=True)
    assert await admitted(shared, FRESH, tries=3) == 3


async def test_a_probe_without_an_answer_doubles_the_time_up_to_a_minute(redis: Redis, shared: SharedAdmission) -> None:
    await unanswered(shared)
    lengths = []
    for _ in range(5):
        lengths.append((await wait_of(shared)).seconds)
        await redis.hdel(STATE, "line:query")  # type: ignore[misc]
        await pass_time(redis, 61)
        assert await admitted(shared, FRESH, tries=1) == 1
        await unanswered(shared, 1)
    assert [round(length, -1 if length > 5.5 else 0) for length in lengths] == [5, 10, 20, 40, 60]


async def test_failures_of_calls_made_before_it_opened_do_not_prolong_it(shared: SharedAdmission) -> None:
    await unanswered(shared, 40)
    assert (await wait_of(shared)).seconds <= 5.01


async def test_a_probe_that_never_reports_makes_room_for_another(redis: Redis, shared: SharedAdmission) -> None:
    await unanswered(shared)
    await pass_time(redis, 5)
    assert await admitted(shared, FRESH, tries=2) == 1
    await pass_time(redis, 20)
    assert await admitted(shared, FRESH, tries=2) == 1


async def test_a_refused_call_is_no_probe(redis: Redis, shared: SharedAdmission) -> None:
    assert await admitted(shared, FRESH, rate=1, tries=1) == 1
    await unanswered(shared)
    await pass_time(redis, 5)
    assert (await wait_of(shared, rate=1)).reason == "rate"
    await redis.delete(CALLS)
    assert await admitted(shared, FRESH, rate=1, tries=1) == 1


# -- Redis forgets -----------------------------------------------------------------------------------------------------


async def test_after_a_flush_no_call_is_admitted_until_the_forgotten_ones_are_old(
    redis: Redis, shared: SharedAdmission
) -> None:
    other = SharedAdmission(redis, processes=4)
    await admitted(shared, SCHEDULED, rate=3, tries=2)
    await redis.flushall()
    assert await admitted(other, FRESH, rate=3, tries=1) == 1  # it has seen no generation before
    assert (await wait_of(shared, FRESH, rate=3)).reason == "redis_forgot"
    assert (await wait_of(other, FRESH, rate=3)).reason == "redis_forgot"
    assert 1500 < await number_of(redis, "quiet") - await server_ms(redis) <= 2101


async def test_a_flush_that_is_noticed_within_its_millisecond_makes_all_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation is finer than the clock, so the wait may end a millisecond later than the longest one from now."""
    at = 1_800_000_000.0009
    monkeypatch.setattr("fakeredis.commands_mixins.server_mixin.time", SimpleNamespace(time=lambda: at))
    async with fake_client_of(FakeServer(version=(7,))) as redis:
        one, other = (SharedAdmission(redis, processes=4) for _ in range(2))
        assert await admitted(one, FRESH, tries=1) == 1
        await redis.flushall()
        at += 0.001
        assert await admitted(other, FRESH, tries=1) == 1
        for process in (one, other):
            assert (await wait_of(process, FRESH)).reason == "redis_forgot"
        at -= 0.001  # no wait for what the clock said before it was set back
        assert await admitted(other, FRESH, tries=1) == 1


async def test_every_flush_starts_a_generation_of_its_own(redis: Redis) -> None:
    """Several within a millisecond too: a process must notice each."""
    generations = []
    for _ in range(20):
        await redis.flushall()
        assert await admitted(SharedAdmission(redis, processes=4), FRESH, rate=3, tries=1) == 1
        generations.append(await number_of(redis, "generation"))
    assert len(set(generations)) == len(generations)


async def test_after_a_restart_no_call_is_admitted_until_the_forgotten_ones_are_old(
    redis: Redis, shared: SharedAdmission
) -> None:
    """Its data may come back from a file that misses the last second; its scripts never do."""
    await admitted(shared, SCHEDULED, tries=1)
    await redis.script_flush()
    assert (await wait_of(shared, FRESH)).reason == "redis_forgot"


async def test_a_script_that_the_same_server_has_dropped_is_no_loss(server_directory: Path) -> None:
    """Redis 7.4 keeps 500 of them. A restart that keeps the data is a loss: some of it may not have been written."""
    with EmbeddedRedis(server_directory, appendonly=True) as server:
        async with client_of(server.url) as client:
            shared = SharedAdmission(client, processes=4)
            assert await admitted(shared, FRESH, tries=1) == 1
            await client.script_flush()
            assert (await wait_of(shared, FRESH)).reason == "redis_forgot", "it is not known yet which server that was"
            for _ in range(2):
                await set_number(client, "quiet", 0)
                await client.script_flush()
                assert await admitted(shared, FRESH, tries=1) == 1
            server.restart()
            assert (await wait_of(shared, FRESH)).reason == "redis_forgot"


async def test_every_script_is_a_loss_on_a_server_that_does_not_say_which_one_it_is() -> None:
    async with fake_client_of(FakeServer(version=(7,))) as redis:
        shared = SharedAdmission(redis, processes=4)
        assert await admitted(shared, FRESH, tries=1) == 1
        for _ in range(2):
            await set_number(redis, "quiet", 0)
            await redis.script_flush()
            assert (await wait_of(shared, FRESH)).reason == "redis_forgot"


async def test_a_new_installation_waits_for_nothing(redis: Redis, shared: SharedAdmission) -> None:
    await redis.script_flush()
    assert await admitted(shared, FRESH, tries=1) == 1


async def test_a_process_back_after_hours_does_not_stop_the_others_for_an_old_flush(
    redis: Redis, shared: SharedAdmission
) -> None:
    await admitted(shared, FRESH, tries=1)
    await set_number(redis, "generation", await server_ms(redis) - 3_600_000)
    assert await admitted(shared, FRESH, tries=2) == 2


# -- Redis is down -----------------------------------------------------------------------------------------------------


async def test_without_redis_each_process_has_its_part_of_the_rate_after_one_window() -> None:
    clock = Clock()
    async with client_of("redis://127.0.0.1:1") as unreachable:
        alone = SharedAdmission(unreachable, processes=4, clock=clock)
        with capture_logs() as lines:
            first = await wait_of(alone, FRESH)
            assert first.reason == "changing_over"
            assert first.seconds == pytest.approx(WINDOW_S)
            clock.now += WINDOW_S - 0.01
            assert (await wait_of(alone)).reason == "changing_over"
            clock.now += 0.02
            assert await admitted(alone, FRESH, rate=12, tries=10) == 3 - kept_share(3)
            assert (await wait_of(alone, FRESH, rate=12)).reason == "rate"
    assert [line["event"] for line in lines] == ["redis_link_lost"]


async def test_while_it_is_down_redis_is_probed_once_a_second(real_redis: Redis) -> None:
    clock = Clock()
    alone = SharedAdmission(real_redis, processes=4, clock=clock)
    alone._link.lost(ConnectionError())
    calls_before = await calls_of(real_redis, "evalsha")
    alone._probe_at = clock.now + 1
    for _ in range(50):
        await alone.admit("shop", 1, QUERY, SCHEDULED)
    assert await calls_of(real_redis, "evalsha") == calls_before
    clock.now += 1
    await asyncio.gather(*(alone.admit("shop", 1, QUERY, SCHEDULED) for _ in range(50)))
    assert await calls_of(real_redis, "evalsha") == calls_before + 1


async def test_shared_and_local_calls_never_add_up_when_redis_goes_and_returns(server_directory: Path) -> None:
    clock = Clock()
    with EmbeddedRedis(server_directory) as server, capture_logs() as lines:
        async with client_of(server.url) as client:
            admission = SharedAdmission(client, processes=1, clock=clock)
            assert await admitted(admission, SCHEDULED, tries=1) == 1
            server.kill()
            assert (await wait_of(admission)).reason == "changing_over"
            clock.now += WINDOW_S
            assert await admitted(admission, SCHEDULED, tries=1) == 1
            server.start()
            clock.now += 1
            answer = await wait_of(admission)
            assert (answer.reason, round(answer.seconds, 1)) == ("changing_over", 2.1)
            clock.now += 2.0
            assert (await wait_of(admission)).reason == "changing_over"
            clock.now += 0.2
            assert (await wait_of(admission)).reason == "redis_forgot"  # the server came back empty
    assert [line["event"] for line in lines] == ["redis_link_lost", "redis_link_restored"]


@pytest.mark.parametrize("urgency", Urgency)
@pytest.mark.parametrize("fault", ["read-only", "full"])
async def test_a_redis_that_takes_no_reservations_counts_as_down(
    server_directory: Path, fault: str, urgency: Urgency
) -> None:
    """It answers, so it must not be taken for one that is back. It has taken reservations before, and those that do not
    count any more would be removed first: a script that has removed something may write.
    """
    clock = Clock()
    with EmbeddedRedis(server_directory) as server:
        async with client_of(server.url) as client:
            assert await admitted(SharedAdmission(client, processes=4), SCHEDULED, tries=1) == 1
            await client.zadd(CALLS, {f"old {number}": SPAN + number for number in range(20)})
            if fault == "read-only":
                await client.replicaof("127.0.0.1", "1")
            else:
                await client.config_set("maxmemory", 1)
            admission = SharedAdmission(client, processes=4, clock=clock)
            assert (await wait_of(admission, urgency)).reason == "changing_over"
            for _ in range(3):
                clock.now += WINDOW_S + 0.01
                assert await admitted(admission, SCHEDULED, rate=4, tries=3) == 1


async def test_many_calls_at_once_do_not_look_like_a_slow_redis(real_redis: Redis) -> None:
    shared = SharedAdmission(real_redis, processes=4)
    began_at = monotonic()
    with capture_logs() as lines:
        answers = await asyncio.gather(*(shared.admit("shop", 10, QUERY, SCHEDULED) for _ in range(500)))
    windows = 1 + int((monotonic() - began_at) / WINDOW_S)  # a busy machine takes longer than one
    assert 10 <= sum(isinstance(answer, Admitted) for answer in answers) <= 10 * windows
    assert lines == []


async def test_a_frozen_redis_delays_no_call_for_long(server_directory: Path) -> None:
    with EmbeddedRedis(server_directory) as server, capture_logs() as lines:
        async with client_of(server.url) as client:
            admission = SharedAdmission(client, processes=4)
            await admitted(admission, SCHEDULED, tries=1)
            with frozen(server.pid):
                began_at = monotonic()
                await asyncio.gather(*(admission.admit("shop", 10, QUERY, SCHEDULED) for _ in range(200)))
                assert monotonic() - began_at < 1.5
    assert [line["event"] for line in lines] == ["redis_link_lost"]


async def test_the_breaker_works_without_redis_and_reports_never_raise() -> None:
    clock = Clock()
    async with client_of("redis://127.0.0.1:1") as unreachable:
        alone = SharedAdmission(unreachable, processes=1, clock=clock)
        await unanswered(alone)
        clock.now += WINDOW_S
        assert (await wait_of(alone)).reason == "breaker"


# -- one process on its own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "processes", "calls", "window_s"), [(50, 4, 12, 1.1), (50, 50, 1, 1.1), (1, 4, 1, 4.4), (2, 5, 1, 3.3)]
)
async def test_all_parts_together_are_at_most_the_rate(rate: int, processes: int, calls: int, window_s: float) -> None:
    clock = Clock()
    local = LocalAdmission(processes, clock=clock)
    assert await admitted(local, FRESH, rate=rate, tries=rate) == calls - kept_share(calls)
    assert await admitted(local, SCHEDULED, rate=rate, tries=rate) == kept_share(calls)
    clock.now += window_s - 0.01
    assert await admitted(local, FRESH, rate=rate, tries=1) == 0
    clock.now += 0.02
    assert await admitted(local, FRESH, rate=rate, tries=1) == 1


async def test_the_local_breaker_opens_probes_doubles_and_closes() -> None:
    clock = Clock()
    local = LocalAdmission(1, clock=clock)
    for length in (5, 10, 20, 40, 60, 60):
        await unanswered(local, 1 if length > 5 else 10)
        assert (await wait_of(local)).seconds == pytest.approx(length)
        clock.now += length
        assert await admitted(local, FRESH, tries=5) == 1
    clock.now += 20
    assert await admitted(local, FRESH, tries=5) == 1  # the probe before was never heard of again
    await local.report("shop", QUERY, answered=True)
    assert await admitted(local, FRESH, tries=3) == 3


async def test_local_failures_far_apart_do_not_open_the_breaker() -> None:
    clock = Clock()
    local = LocalAdmission(1, clock=clock)
    for _ in range(20):
        await unanswered(local, 1)
        clock.now += 7
    assert await admitted(local, FRESH, tries=1) == 1


async def test_the_local_breakers_are_kept_for_each_kind_of_call_too() -> None:
    clock = Clock()
    local = LocalAdmission(1, clock=clock)
    await unanswered(local)
    assert isinstance(await local.admit("shop", 10, CREATE, FRESH), Admitted)
    assert (await wait_of(local)).reason == "breaker"
    assert isinstance(await local.admit("shop", 10, QUERY, FRESH, past_breaker=True), Admitted)
    assert await local.open_breakers(["shop", "other"]) == [("shop", QUERY)]
    clock.now += 5
    assert await admitted(local, FRESH, tries=5) == 1  # the call that passed it was no probe
    await local.report("shop", QUERY, answered=True)
    assert await local.open_breakers(["shop"]) == []


async def test_a_call_of_a_process_on_its_own_counts_until_its_end_too() -> None:
    clock = Clock()
    local = LocalAdmission(1, clock=clock)
    first, second = [await local.admit("shop", 2, QUERY, FRESH) for _ in range(2)]
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    clock.now += 2 * WINDOW_S
    assert (await wait_of(local, FRESH, rate=2)).seconds == pytest.approx(WINDOW_S)
    await local.report("shop", QUERY, answered=None, reservation=first.reservation)
    assert await admitted(local, FRESH, rate=2, tries=2) == 1
    await local.report("shop", QUERY, answered=True, reservation=second.reservation)
    clock.now += WINDOW_S + 0.01
    assert await admitted(local, FRESH, rate=2, tries=3) == 2


async def test_a_process_on_its_own_lends_the_share_of_fresh_calls_too() -> None:
    clock = Clock()
    local = LocalAdmission(1, clock=clock)
    assert await admitted(local, SCHEDULED) == 10
    assert (await wait_of(local, FRESH)).reason == "rate"
    clock.now += WINDOW_S + 0.01
    assert await admitted(local, SCHEDULED) == 8
