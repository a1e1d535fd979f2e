"""Server-sent events: their content, their wake-ups, and everything that ends them."""

import asyncio

import pytest

from api.application import open_application
from api.http import event_stream
from api.http.event_stream import OpenStreams
from api.http.request import Message
from api.pages import handlers as pages
from core.settings import Settings
from runtime.resources import Resources, open_resources
from tests.api.conftest import Channel, expire_tokens, terms, token_of
from tests.api.driver import Client, Stream
from tests.servers import eventually


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "HEARTBEAT_S", 0.05)


async def test_a_stream_begins_with_the_state_and_its_version_as_id(client: Client, buyer: Client) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.states)
        assert stream.text.startswith("retry: ")
        assert stream.states[0]["id"] == "1"
        status = (await buyer.get(f"/o/{token_of(order)}/status")).json
        assert {name: value for name, value in stream.states[0].items() if name != "id"} == status
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")


async def test_a_change_made_by_another_process_ends_the_stream_with_paid(
    client: Client, buyer: Client, account: str, channel: Channel, settings: Settings
) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.states)
        await channel.pay(order["payments"][0]["out_trade_no"])
        async with open_resources(settings) as other, open_application(other, asyncio.Event()) as another:
            await Client(another, api_key=client.api_key).post(f"/v1/orders/{order['order_no']}/refresh")
            await stream.until(lambda now: now.is_over)
    assert [state["status"] for state in stream.states] == ["processing", "paid"]
    assert [int(state["id"]) for state in stream.states] == sorted(int(state["id"]) for state in stream.states)


async def test_a_lost_wake_up_is_made_good_at_the_next_heart_beat(
    client: Client, buyer: Client, resources: Resources, quick_heart: None
) -> None:
    """The order changes in Postgres and the change is not published."""
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: "event: beat" in now.text)
        await resources.db.execute("UPDATE orders SET handed_off_at = now(), version = 2")
        await stream.until(lambda now: len(now.states) == 2)
    assert stream.states[-1]["status"] == "processing"


async def test_a_forged_message_only_makes_it_read_again(client: Client, buyer: Client, resources: Resources) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.states)

        async def forge() -> bool:
            await resources.follow_ups.add(changes=[(order["order_no"], 999)])
            return "event: beat" in stream.text

        await eventually(forge)
    assert [state["status"] for state in stream.states] == ["created"]


async def test_a_client_that_returns_with_the_last_event_id_receives_only_newer_states(
    client: Client, buyer: Client
) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events", last_event_id="1") as stream:
        await stream.until(lambda now: "event: beat" in now.text)
        assert stream.states == []
        await client.post(f"/v1/orders/{order['order_no']}/close")
        await stream.until(lambda now: now.is_over)
    assert stream.states[-1]["status"] == "closed"
    async with buyer.stream(f"/o/{token_of(order)}/events", last_event_id="99") as again:
        await again.until(lambda now: now.is_over)
    assert [state["status"] for state in again.states] == ["closed"], "the definite state is always said once more"


@pytest.mark.parametrize("last_event_id", ["", "x", "-1", "9" * 400, "１"])
async def test_a_last_event_id_that_is_none_counts_as_none(client: Client, buyer: Client, last_event_id: str) -> None:
    order = (await client.post("/v1/orders", terms())).json
    id_ = last_event_id.encode().decode("latin-1")
    async with buyer.stream(f"/o/{token_of(order)}/events", last_event_id=id_) as stream:
        await stream.until(lambda now: now.states)


async def test_a_drain_ends_streams_and_says_when_to_come_back(
    client: Client, buyer: Client, draining: asyncio.Event
) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.states)
        draining.set()
        await stream.until(lambda now: now.is_over)
    retry = int(stream.text.rstrip().rsplit("retry: ", 1)[1])
    assert 1000 <= retry <= 3000
    assert client.app.context.streams.count == 0


async def test_a_token_that_expires_ends_its_stream(
    client: Client, buyer: Client, resources: Resources, quick_heart: None
) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.states)
        await expire_tokens(resources)
        await stream.until(lambda now: now.is_over)


async def test_a_stream_ends_when_it_is_old(client: Client, buyer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "AGE_MAX_S", 0.1)
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events") as stream:
        await stream.until(lambda now: now.is_over)


async def test_a_database_outage_is_a_heart_beat_and_not_the_end(
    client: Client, buyer: Client, resources: Resources, quick_heart: None
) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with buyer.stream(f"/o/{token_of(order)}/events", last_event_id="1") as stream:
        await stream.until(lambda now: "beat" in now.text)
        await resources.db.close()
        before = stream.text.count("beat")
        await stream.until(lambda now: now.text.count("beat") > before + 3)
        assert not stream.is_over


async def test_streams_are_capped_per_address_and_in_all(
    resources: Resources, draining: asyncio.Event, client: Client
) -> None:
    order = (await client.post("/v1/orders", terms())).json
    target = f"/o/{token_of(order)}/events"
    async with open_application(resources, draining, streams=OpenStreams(total_max=3, per_address_max=2)) as app:
        one, two, three = (Client(app, address=f"198.51.100.{number}") for number in (1, 2, 3))
        async with one.stream(target) as first, one.stream(target) as second, two.stream(target) as third:
            for stream in (first, second, third):
                await stream.until(lambda now: now.states)
            for late in (one, three):
                refused = await late.get(target)
                assert (refused.status, refused.problem, refused.headers["retry-after"]) == (
                    429,
                    "too_many_requests",
                    "30",
                )
        assert app.context.streams.count == 0
        async with one.stream(target) as again:
            await again.until(lambda now: now.states)


async def test_a_reader_that_takes_nothing_is_let_go(
    client: Client, buyer: Client, monkeypatch: pytest.MonkeyPatch, quick_heart: None
) -> None:
    monkeypatch.setattr(event_stream, "SEND_TIMEOUT_S", 0.1)
    order = (await client.post("/v1/orders", terms())).json

    async def never_taken(self: Stream, message: Message) -> None:
        self.status = message.get("status", self.status)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    monkeypatch.setattr(Stream, "send", never_taken)
    async with buyer.stream(f"/o/{token_of(order)}/events"):
        await eventually(lambda: client.app.context.streams.count == 1)
        await eventually(lambda: client.app.context.streams.count == 0)
