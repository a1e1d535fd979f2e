"""Evidence is never invented: of all bytes that could come in an answer's place, only the genuine ones are believed."""

import asyncio
from contextlib import suppress

import httpx
from hypothesis import given
from hypothesis import strategies as st

from channels.adapters import open_channel
from channels.transport import Transport
from core.errors import ChannelError
from core.evidence import Evidence, Paid
from tests.channels.conftest import DRIVERS
from tests.channels.driver import Driver, Said, payment
from tests.channels.wire import Answered, Asked

statuses = st.sampled_from([200, 201, 204, 302, 400, 401, 404, 409, 429, 500, 503])


class Changed:
    """Bytes in the place of others, in the body of a genuine answer."""

    def __init__(self, status: int = 200, start: float = 0.0, length: int = 0, put: bytes = b"") -> None:
        self.status, self.start, self.length, self.put = status, start, length, put

    def __call__(self, genuine: Answered) -> Answered:
        at = int(self.start * len(genuine.body))
        body = genuine.body[:at] + self.put + genuine.body[at + self.length :]
        return genuine._replace(status=self.status, body=body)

    def __repr__(self) -> str:
        return f"Changed({self.status}, {self.start}, {self.length}, {self.put!r})"


def ask(driver: Driver, answer: Changed) -> Evidence | None:
    """What a query makes of an answer; None for a declared error, anything else raises."""

    def told(request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.url.raw_path.decode(), headers, request.content, b"")
        status, sent, body = answer(driver.sign_answer(asked, 200, driver.render(Said())))
        return httpx.Response(status, headers=sent, stream=httpx.ByteStream(body))

    async def query() -> Evidence | None:
        async with Transport(timeout_s=5, transport=httpx.MockTransport(told)) as transport:
            with suppress(ChannelError):
                return await open_channel(driver.account("http://127.0.0.1:9"), transport).query_payment(payment())
        return None

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(query())


def test_the_genuine_answer_is_believed() -> None:
    for driver in DRIVERS:
        assert isinstance(ask(driver, Changed()), Paid)


@given(
    driver=st.sampled_from(DRIVERS),
    status=statuses,
    start=st.floats(0, 1),
    length=st.integers(0, 12),
    put=st.binary(max_size=12),
)
def test_a_changed_answer_is_never_evidence(driver: Driver, status: int, start: float, length: int, put: bytes) -> None:
    changed = Changed(status, start, length, put)
    untouched = driver.render(Said())
    if status == 200 and changed(Answered(200, {}, untouched)).body == untouched:
        return
    assert ask(driver, changed) is None
