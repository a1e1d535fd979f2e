"""Test vectors of Alipay's SDKs and of other common ones: real responses, callbacks and certificates."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from msgspec.structs import replace

from channels.alipay.adapter import Alipay
from channels.alipay.keys import certificate_sn, root_certificate_sn
from channels.alipay.wire import callback_string, read_envelope, read_form, string_to_sign
from channels.base import Callback
from channels.kit import rsa
from channels.kit.signed_message import read_json, recorded_checks
from channels.transport import Transport
from core.errors import CallbackForged, ChannelUnreadable
from core.evidence import Paid
from tests.channels.alipay.driver import AlipayDriver
from tests.channels.httpx_carrier import responding
from tests.channels.published import published
from tests.channels.reports import OFFLINE_URL

NOW = datetime(2026, 11, 23, 4, 0, 30, tzinfo=UTC)
OFFLINE = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))
WITHOUT_TYPE = (b"sign", b"sign_type")


def public_key(pem: str) -> RSAPublicKey:
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, RSAPublicKey)
    return key


def negatives(vector: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in vector["negatives"]}


def adapter(vector: dict[str, Any], **credentials: str) -> Alipay:
    """An account with the published key."""
    account = AlipayDriver().account(OFFLINE_URL)
    keys = {"alipay_public_keys": [vector["public_key_pem"]]}
    return Alipay(replace(account, credentials=account.credentials | keys | credentials), OFFLINE)


async def receive(vector: dict[str, Any], body: str) -> Callback:
    params = vector.get("params") or vector["notify"]["params"]
    ours = adapter(vector, app_id=params["app_id"], seller_id=params["seller_id"])
    return await ours.verify_callback({}, body.encode(), received_at=NOW)


# -- callbacks ---------------------------------------------------------------------------------------------------------


async def test_the_official_sdks_callback_is_paid() -> None:
    vector = published("alipay_notify_node_sdk")
    with recorded_checks() as checks:
        callback = await receive(vector, vector["raw_form_body"])
    assert [one.string.decode() for one in checks] == [vector["string_to_verify"]]
    assert callback.notification_id == vector["params"]["notify_id"]
    assert callback.evidence == Paid(
        channel_account="main",
        out_trade_no=vector["params"]["out_trade_no"],
        amount=10,
        currency="CNY",
        channel_transaction_id=vector["params"]["trade_no"],
        at=datetime(2019, 8, 15, 7, 56, 24, tzinfo=UTC),
    )


async def test_the_official_sdks_callback_for_another_seller_is_of_another_account() -> None:
    vector = published("alipay_notify_node_sdk")
    ours = adapter(vector, app_id=vector["params"]["app_id"])
    evidence = (await ours.verify_callback({}, vector["raw_form_body"].encode(), received_at=NOW)).evidence
    assert evidence is not None
    assert evidence.channel_account == f"other:{vector['params']['seller_id']}"


async def test_every_altered_form_of_the_official_sdks_callback_is_forged() -> None:
    vector = published("alipay_notify_node_sdk")
    for name, negative in negatives(vector).items():
        with pytest.raises(CallbackForged):
            pytest.fail(f"{name}: {await receive(vector, negative['raw_form_body'])}")


async def test_a_callback_with_a_plus_and_chinese_in_its_subject_is_paid() -> None:
    vector = published("alipay_notify_yansongda")
    callback = await receive(vector, vector["notify"]["raw_form_body"])
    assert isinstance(callback.evidence, Paid)
    assert callback.evidence.amount == 1
    form = read_form(vector["notify"]["raw_form_body"].encode())
    assert callback_string(form, WITHOUT_TYPE).decode() == vector["notify"]["string_to_verify"]


def test_a_plus_that_is_decoded_twice_does_not_verify() -> None:
    vector = published("alipay_notify_yansongda")
    negative = negatives(vector)["plus_decoded_twice"]
    key = public_key(vector["public_key_pem"])
    assert not rsa.is_signed(key, negative["signature"], negative["string_to_verify"].encode())
    assert rsa.is_signed(key, negative["signature"], vector["notify"]["string_to_verify"].encode())


async def test_a_published_return_address_verifies_and_is_no_evidence() -> None:
    """It has no trade status: reading it as paid would trust the browser."""
    vector = published("alipay_notify_yansongda")
    query = urlsplit(vector["return_url"]["url"]).query
    form = read_form(query.encode())
    assert callback_string(form, WITHOUT_TYPE).decode() == vector["return_url"]["string_to_verify"]
    with pytest.raises(CallbackForged, match="return_address"):
        await receive(vector, query)
    for name in ("return_url_amount_changed", "return_url_extra_routing_parameter"):
        with pytest.raises(CallbackForged):
            await receive(vector, urlsplit(negatives(vector)[name]["url"]).query)


# -- answers -----------------------------------------------------------------------------------------------------------


def test_published_responses_verify_in_both_orders_of_the_envelope() -> None:
    for case in published("alipay_response_verify")["cases"]:
        key = public_key(case["public_key_pem"])
        for raw in (case["raw_response"], case["raw_response_sign_first"]):
            node, sign, _ = read_envelope(raw.encode(), case["response_node"])
            assert node.decode() == case["signed_substring"], case["id"]
            assert sign is not None
            assert rsa.is_signed(key, sign, node), case["id"]


def test_altered_or_reserialised_published_responses_do_not_verify() -> None:
    vector = published("alipay_response_verify")
    cases = {case["id"]: case for case in vector["cases"]}
    for name in ("pretty_printed", "amount_changed"):
        negative = negatives(vector)[name]
        case = cases[negative["of"]]
        signed = negative["signed_substring"].encode()
        assert not rsa.is_signed(public_key(case["public_key_pem"]), case["signature_base64"], signed), name
    unsigned = negatives(vector)["signature_missing"]["raw_response"].encode()
    assert read_envelope(unsigned, "alipay_trade_pay_response").sign is None


def test_the_signed_part_of_published_responses_is_extracted_exactly() -> None:
    checked = 0
    for case in published("alipay_response_extraction")["cases"]:
        if "expected_substring" not in case or case["id"] == "encrypted_string_node":
            continue
        envelope = read_envelope(case["raw"].encode(), case["node"])
        assert envelope.node.decode() == case["expected_substring"], case["id"]
        checked += 1
    assert checked >= 9


REJECTED = ("fzlee_illegal_unclosed", "fzlee_illegal_scalar", "attack_duplicate_root_after", "encrypted_string_node")


def test_broken_and_repeated_responses_are_unreadable() -> None:
    """Encrypted content is never requested, so a node that is a text is unreadable."""
    cases = {case["id"]: case for case in published("alipay_response_extraction")["cases"]}
    for name in REJECTED:
        with pytest.raises(ChannelUnreadable):
            pytest.fail(f"{name}: {read_envelope(cases[name]['raw'].encode(), cases[name]['node'])}")
    doubled = cases["attack_duplicate_key_inside"]
    with pytest.raises(ChannelUnreadable):
        read_json(read_envelope(doubled["raw"].encode(), doubled["node"]).node, dict[str, str])
    nested = cases["attack_duplicate_root_before"]
    assert b"TRADE_SUCCESS" in read_envelope(nested["raw"].encode(), nested["node"]).node, "the top level, and no other"


# -- requests ----------------------------------------------------------------------------------------------------------


def test_a_published_request_in_certificate_mode_verifies() -> None:
    vector = published("alipay_request_sign")
    case = vector["verify_only_case"]
    string = string_to_sign(case["params"])
    assert string.decode() == case["string_to_sign"]
    key = load_pem_x509_certificate(case["certificate_pem"].encode()).public_key()
    assert isinstance(key, RSAPublicKey)
    assert rsa.is_signed(key, case["expected_signature_base64"], string)
    for name in ("values_url_encoded_before_signing", "sign_type_left_out"):
        wrong = negatives(vector)[name]["string_to_sign"].encode()
        assert not rsa.is_signed(key, case["expected_signature_base64"], wrong), name


def test_published_requests_are_signed_byte_for_byte() -> None:
    signing = published("alipay_request_sign")["sign_cases"]
    key = load_pem_private_key(signing["private_key_pem"].encode(), None)
    assert isinstance(key, RSAPrivateKey)
    for case in signing["cases"]:
        string = string_to_sign(case["params_without_sign"])
        assert string.decode() == case["string_to_sign"], case["id"]
        assert rsa.sign(key, string) == case["expected_signature_base64"], case["id"]
        encoded = dict(parse_qsl(urlsplit(case["expected_encoded"]).query or case["expected_encoded"]))
        assert string_to_sign(encoded) == string, case["id"]


def test_a_published_signature_with_sha1_does_not_verify() -> None:
    """Libraries that take the hash from the signature accept it."""
    vector = published("alipay_request_sign")
    negative = negatives(vector)["sha1_signature_must_not_pass_as_RSA2"]
    key = public_key(vector["sign_cases"]["public_key_pem"])
    assert not rsa.is_signed(key, negative["signature_base64"], negative["message"].encode())


# -- certificates ------------------------------------------------------------------------------------------------------


def test_published_certificates_have_the_published_serial_numbers() -> None:
    for case in published("alipay_cert_sn")["cases"]:
        certificate = load_pem_x509_certificate(case["certificate_pem"].encode())
        assert certificate_sn(certificate) == case["expected_sn"], case["id"]


def test_the_published_root_file_has_the_published_serial_number() -> None:
    """Two of its four certificates are left out: one is signed with SM2, one cannot be parsed."""
    root = published("alipay_cert_sn")["root_case"]
    assert root_certificate_sn(root["root_file_pem"]) == root["expected_sn"]
