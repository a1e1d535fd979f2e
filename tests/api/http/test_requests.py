"""The way to a handler: routes, keys, bodies, JSON. Every fault of a client is a problem, never a 500."""

import asyncio
import json
import re
from collections.abc import Mapping

import msgspec
import pytest

from api import routes
from api.application import open_application
from api.context import Context
from api.http.asgi import LAG_MAX_S, REQUESTS_MAX, App
from api.http.fields import parse_json
from api.http.request import LoopLag, client_address, client_ip
from api.http.route import JSON_BODY_BYTES_MAX, Auth, Route
from api.v1.schemas import OrderInput
from core.errors import InvalidRequest
from core.money import AMOUNT_MAX
from core.settings import Settings
from runtime.resources import Resources, open_resources
from tests.api.conftest import terms, token_of
from tests.api.driver import Client
from tests.servers import eventually

TABLE = routes.table(65_536)
GUARDED = [route for route in TABLE if route.auth is Auth.API_KEY]
PARAMETERS = {
    "order_no": "A-1",
    "account": "main",
    "token": "t" * 22,
    "name": "order.js",
    "slug": "not_found",
    "approval_id": "7",
    "case_id": "7",
}


def address(route: Route[Context]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: PARAMETERS.get(match[1], "1"), route.pattern)


# -- who may call ------------------------------------------------------------------------------------------------------


AUTHORIZATIONS = (
    "", "Bearer", "Bearer ", "Bearer ndk_unknown", "Basic bmRrOm5kaw==", "Bearer v1=é", "Bearer a b", "ndk_x",
    "Bearer " + "k" * 5000, "Bearer a, Bearer b",
)  # fmt: skip


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.pattern}")
async def test_without_a_known_key_it_is_401_before_the_body_is_read(app: App[Context], route: Route[Context]) -> None:
    for authorization in AUTHORIZATIONS:
        headers = {"authorization": authorization} if authorization else {}
        response = await Client(app).call(route.method, address(route), body=b"{" * 100, headers=headers)
        assert (response.status, response.problem, response.reads) == (401, "unauthorized", 0), authorization
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.headers["connection"] == "close", "what is left of the body is not read"


async def test_every_route_of_v1_wants_a_key() -> None:
    assert all(route.auth is Auth.API_KEY for route in TABLE if route.pattern.startswith(("/v1/", "/metrics")))


async def test_a_revoked_key_opens_nothing_after_ten_seconds(client: Client, resources: Resources) -> None:
    now = 1000.0
    keys = client.app.keys
    keys._clock = lambda: now
    assert (await client.get("/v1/orders")).status == 200
    await resources.db.execute("UPDATE api_keys SET revoked_at = now()")
    now += 9.9
    assert (await client.get("/v1/orders")).status == 200
    now += 0.2
    assert (await client.get("/v1/orders")).status == 401


# -- where it goes -----------------------------------------------------------------------------------------------------


async def test_an_address_that_is_not_in_the_table_is_404(client: Client) -> None:
    for path in (
        "/v1", "/v1/orders/", "/v1/orders//", "//v1/orders", "/V1/orders", "/v1/orders/a/b/c/d", "/o", "/o/",
        "/o/static/", "/callbacks/", "/%2e%2e/etc", "/problems/", "/o/%00", "/\xe9",
    ):  # fmt: skip
        assert (await client.get(path)).status == 404, path


async def test_another_method_is_405_and_names_the_right_ones(client: Client) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X" * 100):
        response = await client.call(method, "/callbacks/main")
        assert (response.status, response.problem, response.headers["allow"]) == (405, "method_not_allowed", "POST")


async def test_head_is_get(client: Client) -> None:
    assert (await client.call("HEAD", "/healthz")).status == 200


async def test_beyond_its_room_it_says_503_at_once_and_health_is_still_readable(client: Client) -> None:
    for number in range(REQUESTS_MAX):
        client.app._places.take(str(number))
    refused = await client.get("/v1/orders")
    assert (refused.status, refused.problem, refused.headers["retry-after"]) == (503, "unavailable", "2")
    assert (await client.get("/healthz")).status == 200


async def test_a_process_that_is_late_says_503_at_once_and_takes_callbacks_for_longer(client: Client) -> None:
    """Work that it began would end in a time-out, and its reminders would be late."""
    lag = client.app._lag
    for seconds, statuses in ((0.5, (200, 401)), (1.5, (503, 401)), (3.5, (503, 503))):
        lag.seconds = seconds
        order, callback = await client.get("/v1/orders"), await client.post("/callbacks/nobody", {})
        assert (order.status, callback.status) == statuses, seconds
        assert (await client.get("/healthz")).status == 200


async def test_one_pause_of_the_loop_is_no_lag_yet_and_several_are() -> None:
    lag = LoopLag()
    now = asyncio.get_running_loop().time()
    lag._measure(now - 1.8)
    assert lag.seconds < LAG_MAX_S
    lag.end()
    lag._measure(now - 1.8)
    assert lag.seconds > LAG_MAX_S
    lag.end()


@pytest.mark.usefixtures("measured_lag")
async def test_the_lag_of_the_application_is_measured(client: Client) -> None:
    lag = client.app._lag
    lag.seconds = 8.0
    await eventually(lambda: lag.seconds < 0.5)


# -- bodies ------------------------------------------------------------------------------------------------------------


async def test_a_declared_body_over_the_cap_is_refused_unread(buyer: Client) -> None:
    response = await buyer.call("POST", "/callbacks/main", body=b"", headers={"content-length": str(10_000_000)})
    assert (response.status, response.problem, response.reads) == (413, "body_too_large", 0)
    assert response.headers["connection"] == "close"


async def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_cap(buyer: Client) -> None:
    response = await buyer.call("POST", "/callbacks/main", body=[b"x" * 16_384] * 1000)
    assert (response.status, response.problem, response.reads) == (413, "body_too_large", 5)


async def test_a_declared_length_that_lies_changes_nothing(buyer: Client) -> None:
    response = await buyer.call("POST", "/callbacks/main", body=[b"x" * 65_537], headers={"content-length": "5"})
    assert response.status == 413


async def test_an_encoded_body_is_refused_unread(buyer: Client) -> None:
    for encoding in ("gzip", "br", "deflate, gzip", "GZIP", "x"):
        response = await buyer.call("POST", "/callbacks/main", body=b"\x1f\x8b", headers={"content-encoding": encoding})
        assert (response.status, response.problem, response.reads) == (415, "unsupported_body", 0), encoding


@pytest.mark.usefixtures("short_body_timeout")
async def test_a_body_that_never_ends_is_408_at_its_deadline(client: Client) -> None:
    response = await client.call("POST", "/v1/orders", body=[b'{"order_no":'], ends=False)
    assert (response.status, response.problem) == (408, "body_too_slow")


async def test_no_response_is_sent_when_the_client_has_gone(client: Client) -> None:
    response = await client.call("POST", "/v1/orders", body=[b'{"order_no":'], gone=True)
    assert response.status == 0


async def test_only_json_is_taken_as_json(client: Client) -> None:
    for media_type in ("", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
        response = await client.call("POST", "/v1/orders", body=b"{}", headers={"content-type": media_type})
        assert (response.status, response.problem) == (415, "unsupported_body"), media_type


# -- malformed ---------------------------------------------------------------------------------------------------------

ORDER = b'"order_no":"A-1","amount":1,"currency":"CNY"'
METADATA_21 = msgspec.json.encode({str(number): "" for number in range(21)})
MALFORMED: Mapping[str, bytes] = {
    "nothing": b"",
    "not json": b"order_no=A-1",
    "not an object": b"[1]",
    "null": b"null",
    "bom": b"\xef\xbb\xbf{}",
    "utf-16": '{"order_no":"A-1"}'.encode("utf-16"),
    "invalid utf-8": b"{" + ORDER + b',"subject":"\xff"}',
    "overlong utf-8": b"{" + ORDER + b',"subject":"\xc0\xaf"}',
    "nul": b"{" + ORDER + b',"subject":"a\\u0000b"}',
    "raw control": b"{" + ORDER + b',"subject":"a\x01b"}',
    "cr lf": b"{" + ORDER + b',"subject":"a\\r\\nX-Evil: 1"}',
    "trailing newline": b'{"order_no":"A-1\\n","amount":1,"currency":"CNY","subject":"x"}',
    "delete": b"{" + ORDER + b',"subject":"a\\u007fb"}',
    "raw delete": b"{" + ORDER + b',"subject":"a\x7fb"}',
    "raw control of latin 1": b"{" + ORDER + b',"subject":"a\xc2\x85b"}',
    "raw delete in a key": b"{" + ORDER + b',"subject":"x","metadata":{"a\x7f":"x"}}',
    "lone surrogate": b"{" + ORDER + b',"subject":"\\ud800"}',
    "lone surrogate in a key": b"{" + ORDER + b',"\\udfff":"x"}',
    "lone surrogate in metadata": b"{" + ORDER + b',"subject":"x","metadata":{"\\ud800":"x"}}',
    "doubled key": b"{" + ORDER + b',"subject":"x","amount":2}',
    "doubled key inside": b"{" + ORDER + b',"subject":"x","metadata":{"a":"1","a":"2"}}',
    "nan": b'{"order_no":"A-1","amount":NaN,"currency":"CNY","subject":"x"}',
    "infinity": b"{" + ORDER + b',"subject":"x","expires_in_s":Infinity}',
    "huge exponent": b"{" + ORDER + b',"subject":"x","expires_in_s":1e400}',
    "5,000 digits": b'{"order_no":"A-1","amount":' + b"9" * 5000 + b',"currency":"CNY","subject":"x"}',
    "400 digits": b'{"order_no":"A-1","amount":' + b"9" * 400 + b',"currency":"CNY","subject":"x"}',
    "nested 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "objects 5,000 deep": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "boolean amount": b'{"order_no":"A-1","amount":true,"currency":"CNY","subject":"x"}',
    "decimal amount": b'{"order_no":"A-1","amount":1.5,"currency":"CNY","subject":"x"}',
    "text amount": b'{"order_no":"A-1","amount":"1","currency":"CNY","subject":"x"}',
    "zero amount": b'{"order_no":"A-1","amount":0,"currency":"CNY","subject":"x"}',
    "negative amount": b'{"order_no":"A-1","amount":-1,"currency":"CNY","subject":"x"}',
    "amount over the largest": b'{"order_no":"A-1","amount":%d,"currency":"CNY","subject":"x"}' % (AMOUNT_MAX + 1),
    "full-width digits": '{"order_no":"Ａ-１","amount":1,"currency":"CNY","subject":"x"}'.encode(),
    "full-width amount": '{"order_no":"A-1","amount":８,"currency":"CNY","subject":"x"}'.encode(),
    "lower-case currency": b'{"order_no":"A-1","amount":1,"currency":"cny","subject":"x"}',
    "empty subject": b"{" + ORDER + b',"subject":""}',
    "subject of 128": b"{" + ORDER + b',"subject":"' + b"x" * 128 + b'"}',
    "unknown field": b"{" + ORDER + b',"subject":"x","notify_ulr":"https://a.test"}',
    "path in order_no": b'{"order_no":"../A","amount":1,"currency":"CNY","subject":"x"}',
    "order_no of 65": b'{"order_no":"' + b"A" * 65 + b'","amount":1,"currency":"CNY","subject":"x"}',
    "21 metadata": b"{" + ORDER + b',"subject":"x","metadata":' + METADATA_21 + b"}",
    "metadata key of 41": b"{" + ORDER + b',"subject":"x","metadata":{"' + b"k" * 41 + b'":""}}',
    "metadata value of 501": b"{" + ORDER + b',"subject":"x","metadata":{"k":"' + b"v" * 501 + b'"}}',
    "metadata number": b"{" + ORDER + b',"subject":"x","metadata":{"k":1}}',
    "no time at all": b"{" + ORDER + b',"subject":"x","expires_in_s":0}',
    "method without account": b"{" + ORDER + b',"subject":"x","method":"native"}',
    "watch without account": b"{" + ORDER + b',"subject":"x","watch":{"out_trade_no":"legacy-1"}}',
    "naive instant": b"{" + ORDER + b',"subject":"x","account":"main","watch":'
    b'{"out_trade_no":"legacy-1","payable_until":"2026-01-01T00:00:00"}}',
}  # fmt: skip


async def test_a_malformed_order_is_refused_and_the_next_request_is_served(client: Client) -> None:
    for name, body in MALFORMED.items():
        response = await client.call("POST", "/v1/orders", body=body, headers={"content-type": "application/json"})
        assert (response.status, response.problem) == (400, "invalid_request"), (name, response.body)
    assert (await client.post("/v1/orders", terms())).status == 201


REFUSED_URLS = (
    "http://shop.test/n", "ftp://shop.test", "javascript:alert(1)", "//shop.test/n", "https:///n", "https://",
    "shop.test", "https://user@shop.test/n", "https://user:pass@shop.test/n", "https://shop.test\\@127.0.0.1/",
    "https://shop.test/a\\b", "https://shop.test/a b", "https://shop.test/\n", "https://shop.test:99999/",
    "https://shop.test:0/", "https://[::1/n", "https://shop.test:/n", "https://shöp.test/n",
    "https://shop.test/" + "n" * 2048, "HTTPS://SHOP.TEST", "",
)  # fmt: skip


async def test_an_address_that_libraries_read_differently_is_refused(client: Client) -> None:
    for url in REFUSED_URLS:
        response = await client.post("/v1/orders", terms(notify_url=url))
        assert (response.status, response.problem) == (400, "invalid_request"), url


@pytest.mark.parametrize(
    "url", ["https://shop.test", "https://shop.test:8443/n?a=1&b=%20#x", "https://[2606:4700::1111]/n"]
)
async def test_an_ordinary_address_is_taken(client: Client, url: str) -> None:
    assert (await client.post("/v1/orders", terms(notify_url=url, return_url=url))).status == 201


async def test_the_largest_order_of_the_schema_fits_the_cap_of_its_body() -> None:
    largest = terms(
        order_no="A" * 64,
        amount=AMOUNT_MAX,
        subject="😀" * 127,
        notify_url="https://shop.test/" + "n" * 2030,
        return_url="https://shop.test/" + "n" * 2030,
        metadata={f"{i:02}" + "😀" * 38: "😀" * 500 for i in range(20)},
    )
    body = json.dumps(largest).encode()
    assert b"\\ud83d\\ude00" in body
    assert len(body) < JSON_BODY_BYTES_MAX
    assert msgspec.json.decode(body, type=OrderInput).order_no == "A" * 64


def test_ordinary_json_is_read_as_it_is() -> None:
    assert parse_json('{"a":[1,2.5,null,true,"汉😀"]}'.encode()) == {"a": [1, 2.5, None, True, "汉😀"]}
    with pytest.raises(InvalidRequest, match="there twice"):
        parse_json(b'{"a":1,"a":1}')


# -- whose request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "hops", "address"),
    [
        ("", 0, "192.0.2.1"),
        ("198.51.100.1", 0, "192.0.2.1"),
        ("198.51.100.1", 1, "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1", 1, "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1, 10.0.0.1", 2, "198.51.100.1"),
        ("198.51.100.1", 2, "198.51.100.1"),
        ("not an address", 1, "192.0.2.1"),
        ("198.51.100.1:443", 1, "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", 1, "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3::9]:443", 1, "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", 1, "198.51.100.1"),
        (",,", 1, "192.0.2.1"),
    ],
)
def test_forwarded_addresses_count_only_as_far_as_proxies_are_trusted(forwarded: str, hops: int, address: str) -> None:
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    assert client_address({"client": ("192.0.2.1", 1)}, headers, hops) == address


@pytest.mark.parametrize(
    ("forwarded", "peer", "address"),
    [
        ("", "192.0.2.1", "192.0.2.1"),
        ("198.51.100.1:443", "192.0.2.1", "198.51.100.1"),
        ("[2001:db8:1:2:3::9]:443", "192.0.2.1", "2001:db8:1:2:3::9"),
        ("", "2001:db8::1%eth0", "2001:db8::1"),
        ("::ffff:198.51.100.1", "192.0.2.1", "198.51.100.1"),
        ("6.6.6.6, 2001:db8::7", "192.0.2.1", "2001:db8::7"),
        ("not an address", "192.0.2.1", "192.0.2.1"),
        ("", "a socket", ""),
    ],
)
def test_the_whole_address_of_a_buyer_is_known_for_channels_that_compare_it(
    forwarded: str, peer: str, address: str
) -> None:
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    assert client_ip({"client": (peer, 1)}, headers, 1) == address
    assert client_ip({}, {}, 0) == ""


# -- HTTPS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public_url", "expected"), [("https://pay.test", "max-age=31536000"), ("http://pay.test", None)]
)
async def test_browsers_are_told_to_stay_with_https_where_it_is_the_public_address(
    settings: Settings, client: Client, public_url: str, expected: str | None
) -> None:
    order = (await client.post("/v1/orders", terms())).json
    async with (
        open_resources(msgspec.structs.replace(settings, public_url=public_url)) as resources,
        open_application(resources, asyncio.Event()) as app,
    ):
        caller = Client(app)
        for path in ("/healthz", "/o/shell", "/none", f"/o/{token_of(order)}"):
            assert (await caller.get(path)).headers.get("strict-transport-security") == expected, path
        async with caller.stream(f"/o/{token_of(order)}/events") as stream:
            await stream.until(lambda now: now.status)
        assert stream.headers.get("strict-transport-security") == expected


async def test_a_host_that_is_missing_or_none_is_400(client: Client) -> None:
    for host in ("", "a, b", "a b", "a/b", "a@b", "é"):
        response = await client.get("/healthz", host=host)
        assert (response.status, response.problem) == (400, "invalid_request"), host
