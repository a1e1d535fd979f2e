"""Compression: chosen by its reader, for what is public, and for nothing that may hold a token."""

import gzip
import json

import pytest

from api.http.packing import SAVING_BYTES_MIN, form_for, packed
from api.http.response import Response
from api.pages import assets
from tests.api.conftest import terms, token_of
from tests.api.driver import Client

LARGE = packed(Response(body=b"of one kind " * 500))
IS_GZIP = ("content-encoding", "gzip")

TAKEN = (
    "gzip", "GZIP", "x-gzip", "br, gzip", "gzip;q=0.001", "gzip ; q=1.000", "*", "br;q=1.0, *;q=0.1", "gzip, identity",
    "deflate,\tgzip;q=0.5", "identity;q=0.4, gzip;q=0.5", "bröken, gzip",
)  # fmt: skip
NOT_TAKEN = (
    "", "identity", "br", "gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=0, *", "gzip;q=0.5, identity", "gzip;q=2",
    "gzip;q=-1", "gzip;q=nan", "gzip;level=9", "gzipped", "not-gzip", ";q=1", ",,,", "gzip gzip",
)  # fmt: skip


@pytest.mark.parametrize("accept_encoding", TAKEN)
def test_a_reader_that_takes_gzip_gets_it(accept_encoding: str) -> None:
    sent = form_for(accept_encoding, LARGE)
    assert IS_GZIP in sent.headers
    assert gzip.decompress(sent.body) == LARGE.body


@pytest.mark.parametrize("accept_encoding", NOT_TAKEN)
def test_any_other_reader_gets_the_body_as_it_is(accept_encoding: str) -> None:
    assert form_for(accept_encoding, LARGE) is LARGE
    assert IS_GZIP not in LARGE.headers


def test_both_forms_tell_caches_why_they_differ() -> None:
    for accept_encoding in ("gzip", "identity"):
        assert ("vary", "accept-encoding") in form_for(accept_encoding, LARGE).headers


def test_the_same_content_has_the_same_bytes() -> None:
    """So every process of a release sends one file, whenever it began."""
    assert packed(Response(body=b"a" * 5000)).gzipped == packed(Response(body=b"a" * 5000)).gzipped


def test_what_would_hardly_be_shorter_stays_as_it_is() -> None:
    small = Response(body=b"a" * SAVING_BYTES_MIN)
    assert packed(small) is small
    assert form_for("gzip", small) is small


# -- the application ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/docs", "/openapi.json", assets.url("order.js"), assets.url("order.css")])
async def test_what_is_large_and_public_is_compressed(client: Client, address: str) -> None:
    whole, short = await client.get(address), await client.get(address, accept_encoding="br;q=1.0, gzip;q=0.8")
    assert gzip.decompress(short.body) == whole.body
    assert len(short.body) < len(whole.body) / 2
    assert (short.headers.pop("content-encoding"), "content-encoding" in whole.headers) == ("gzip", False)
    for response in (whole, short):
        assert int(response.headers.pop("content-length")) == len(response.body)
        del response.headers["x-request-id"]
    assert short.headers == whole.headers
    assert whole.headers["vary"] == "accept-encoding"


async def test_nothing_that_may_hold_a_token_is_compressed(client: Client, buyer: Client, account: str) -> None:
    """The subject is another's text and as long as one may be: compressed, its response would be much shorter."""
    placed = await client.post("/v1/orders", terms(subject="a" * 127, account=account), accept_encoding="gzip")
    order, page = f"/v1/orders/{placed.json['order_no']}", f"/o/{token_of(placed.json)}"
    merchants = (order, f"{order}/timeline", "/v1/orders", "/v1/cases", "/metrics", "/nowhere")
    buyers = (page, f"{page}/status", "/o/shell", "/o/unknown")
    responses = [await client.get(address, accept_encoding="gzip") for address in merchants]
    responses += [await buyer.get(address, accept_encoding="gzip") for address in buyers]
    for response in (placed, *responses):
        assert "content-encoding" not in response.headers
        assert "vary" not in response.headers
        assert response.body.startswith((b"{", b"<!doctype html>", b"# HELP"))


async def test_an_event_stream_is_never_compressed(client: Client, buyer: Client, account: str) -> None:
    token = token_of((await client.post("/v1/orders", terms(account=account))).json)
    async with buyer.stream(f"/o/{token}/events", accept_encoding="gzip") as stream:
        await stream.until(lambda stream: stream.states)
        assert "content-encoding" not in stream.headers
        assert json.dumps(stream.states)
