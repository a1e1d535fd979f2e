"""The note of a refused callback: its verdict, the ids that it claims, and no address."""

from hashlib import sha256

import pytest

from core.errors import CallbackForged, CallbackStale, ChannelNotCalled, NodropError, UnknownAccount
from core.refusals import (
    BODY_START_BYTES,
    CLAIMED_IDS_MAX,
    DETAIL_CHARACTERS_MAX,
    HEADER_CHARACTERS_MAX,
    NO_ACCOUNT,
    Claims,
    Verdict,
    claimed_ids,
    claims_of,
    network_of,
    refused_callback,
    verdict_of,
)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (CallbackForged("signature"), Verdict.FORGED),
        (CallbackStale(), Verdict.STALE),
        (ChannelNotCalled(), Verdict.NOT_VERIFIABLE),
        (UnknownAccount("no account"), Verdict.UNKNOWN_ACCOUNT),
    ],
)
def test_each_fault_of_the_verification_is_a_verdict(error: NodropError, verdict: Verdict) -> None:
    assert verdict_of(error) is verdict


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"id":"evt_000001","payment":{"out_trade_no": "0199aaf3c1a2b"}}', ("evt_000001", "0199aaf3c1a2b")),
        (b"app_id=2021&out_trade_no=0199aaf3c1a2b&sign=x", ("0199aaf3c1a2b",)),
        (b"out_trade_no=0199aaf3c1a2b", ("0199aaf3c1a2b",)),
        (b'{"resource":{"custom_id":"0199aaf3c1a2b","id":"0199aaf3c1a2b"}}', ("0199aaf3c1a2b",)),
        (b'{"out_trade_no":"0199aaf3c1a2b","rest":"' + b"x" * BODY_START_BYTES, ("0199aaf3c1a2b",)),
        (b'"' + b"x" * BODY_START_BYTES + b'","out_trade_no":"0199aaf3c1a2b"', ()),
        (b'{"out_trade_no":"short"}', ()),
        (b'{"out_trade_no":"' + b"x" * 129 + b'"}', ()),
        (b"not_out_trade_no=0199aaf3c1a2b", ()),
        (b"out_trade_no=%3Cscript%3E", ()),
        (b"\xff\xfe\x00", ()),
        (b"", ()),
    ],
)
def test_the_ids_that_a_body_claims_are_read_without_trusting_its_form(body: bytes, ids: tuple[str, ...]) -> None:
    assert claimed_ids(body) == ids


@pytest.mark.parametrize(
    ("headers", "body", "claims"),
    [
        (
            {"wechatpay-serial": "PUB_KEY_ID_0114232134912410000000000000", "wechatpay-timestamp": "1732340000"},
            b'{"id":"EV-2018022511223320873","resource":{"ciphertext":"x"}}',
            Claims(
                message_id="EV-2018022511223320873", serial="PUB_KEY_ID_0114232134912410000000000000", at="1732340000"
            ),
        ),
        (
            {"stripe-signature": "t=1492774577,v1=5257a8"},
            b'{"id": "evt_000001"}',
            Claims(message_id="evt_000001", at="1492774577"),
        ),
        (
            {
                "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-1",
                "paypal-transmission-time": "2026-11-23T04:30:00Z",
            },
            b' { "id" : "WH-000001" }',
            Claims(message_id="WH-000001", serial="CERT-1", at="2026-11-23T04:30:00Z"),
        ),
        ({}, b"app_id=1&notify_id=ac05099524730693a8b330c5&x=1", Claims(message_id="ac05099524730693a8b330c5")),
        ({"wechatpay-serial": "<script>", "wechatpay-timestamp": "now"}, b'{"id":"<script>x"}', Claims()),
        ({}, b'{"other":1,"id":"EV-000001"}', Claims()),
        ({}, b'{"id":"' + b"x" * 129 + b'"}', Claims()),
        ({}, b"\xff\x00", Claims()),
    ],
)
def test_the_claims_of_a_callback_about_itself_are_texts_of_their_forms(
    headers: dict[str, str], body: bytes, claims: Claims
) -> None:
    assert claims_of(headers, body) == claims
    assert refused_callback("main", CallbackForged(), headers, body, "203.0.113.9").claims == claims
    assert refused_callback("main", UnknownAccount(), headers, body, "203.0.113.9").claims == Claims()


def test_a_body_claims_a_few_ids_at_most() -> None:
    body = b",".join(b'"id":"number-%d"' % n for n in range(100))
    assert claimed_ids(body) == tuple(f"number-{n}" for n in range(CLAIMED_IDS_MAX))


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2::7", "2001:db8:1::/48"),
        ("unix", ""),
        ("", ""),
    ],
)
def test_where_it_came_from_is_kept_as_a_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_refused_callback_is_noted_within_bounds() -> None:
    body = b'{"out_trade_no":"0199aaf3c1a2b"}' + b" " * 100_000
    error = CallbackForged("x" * 1000)
    noted = refused_callback("main", error, {"sandbox-signature": "s" * 9000}, body, "203.0.113.9")
    assert (noted.account, noted.verdict, noted.copies) == ("main", Verdict.FORGED, 1)
    assert (noted.body_hash, noted.body_bytes) == (sha256(body).digest(), len(body))
    assert noted.body_start == body[:BODY_START_BYTES]
    assert noted.ids == ("0199aaf3c1a2b",)
    assert len(noted.detail) == DETAIL_CHARACTERS_MAX
    assert noted.headers == {"sandbox-signature": "s" * HEADER_CHARACTERS_MAX}


@pytest.mark.parametrize(("name", "detail"), [("mian", "mian"), ("Main", ""), ("<script>", ""), ("a" * 41, "")])
def test_of_an_unknown_account_only_a_possible_name_is_noted(name: str, detail: str) -> None:
    noted = refused_callback(name, UnknownAccount(f"there is no account {name}"), {"a": "b"}, b'"id":"number-1"', "")
    assert (noted.account, noted.detail) == (NO_ACCOUNT, detail)
    assert (noted.headers, noted.body_start, noted.ids) == ({}, b"", ())
