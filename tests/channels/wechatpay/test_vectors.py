"""Signatures and ciphertexts published by WeChat Pay's documentation and by SDKs."""

import base64
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509 import Certificate

from channels.kit.rsa import is_signed, load_certificate, load_private_key, load_public_key, sign
from channels.transport import Response, Transport
from channels.wechatpay import wire as wechatpay_wire
from channels.wechatpay.certificates import read_certificates
from channels.wechatpay.keys import KeyRing, Sealed, seal_key, serial_of, unseal
from channels.wechatpay.wire import Wire
from core.account import AccountConfig
from core.errors import ChannelUnreadable, ConfigurationError
from tests.channels.httpx_carrier import responding
from tests.channels.published import published
from tests.channels.wechatpay.driver import APIV3_KEY, PUBLIC_KEY_ID, keys, private_pem, public_pem

JAVA_SEALED = "wechat_v3_aead_wechatpay_java"
GO_CALLBACK = "wechat_v3_notify_wechatpay_go"
DOC_ANSWER = "wechat_v3_response_verify_official_doc"
JAVA_SIGNED = "wechat_v3_rsa_verify_wechatpay_java"
GO_SIGNED = "wechat_v3_rsa_wechatpay_go"
DOC_SIGNING = "wechat_v3_sign_official_doc"
PHP_CALLBACK = "wechat_v3_yansongda"

OFFLINE = Transport(timeout_s=1, carrier=responding(lambda _: httpx.Response(500)))


def at(clock: float) -> datetime:
    return datetime.fromtimestamp(clock, UTC)


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def wire(clock: float, **credentials: Any) -> Wire:
    known = {
        "appid": "wx0000000000000001",
        "mchid": "1600000001",
        "merchant_serial": "0A" * 20,
        "private_key": credentials.pop("private_key", None) or private_pem(next(iter(keys().ours.values()))),
        "apiv3_key": APIV3_KEY,
        "public_keys": {PUBLIC_KEY_ID: public_pem(next(iter(keys().theirs.values())))},
    }
    account = AccountConfig(
        name="main", channel="wechatpay", base_url="http://127.0.0.1:9", credentials=known | credentials
    )
    return Wire(account, OFFLINE, clock=lambda: clock)


# -- what we sign ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(2))
def test_a_request_is_signed_as_the_documentation_shows(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    vectors = published(DOC_SIGNING)
    case = vectors["request_cases"][index]
    fields = case["expected_authorization_fields"]
    ours = wire(
        float(case["timestamp"]),
        private_key=vectors["private_key_pem"],
        mchid=fields["mchid"],
        merchant_serial=fields["serial_no"],
    )
    monkeypatch.setattr(wechatpay_wire, "token_hex", lambda _: case["nonce_str"])
    authorization = ours._headers(case["method"], case["url_path_and_query"], case["body"].encode())["Authorization"]
    assert authorization.startswith("WECHATPAY2-SHA256-RSA2048 ")
    expected_fields = {f'{name}="{value}"' for name, value in fields.items() if name != "scheme"}
    assert set(authorization.partition(" ")[2].split(",")) == expected_fields


def test_the_page_signature_matches_the_documentation() -> None:
    vectors = published(DOC_SIGNING)
    case = vectors["pay_sign_cases"][0]
    appid, timestamp, nonce, package, _ = case["string_to_sign"].split("\n")
    ours = wire(0, private_key=vectors["private_key_pem"], appid=appid)
    assert ours.sign_package(timestamp, nonce, package) == case["expected_signature_base64"]


def test_the_documentations_wrong_examples_have_another_signature() -> None:
    vectors = published(DOC_SIGNING)
    key = load_private_key(vectors["private_key_pem"], "private_key")
    for negative in vectors["negatives"]:
        string = negative.get("string_to_sign", negative.get("body"))
        assert sign(key, string.encode()) != negative["must_not_equal"]


def test_the_go_sdks_signature_is_ours() -> None:
    vectors = published(GO_SIGNED)
    key = load_private_key(vectors["private_key_pem"], "private_key")
    assert sign(key, vectors["message"].encode()) == vectors["expected_signature_base64"]


@pytest.mark.parametrize("index", range(2))
def test_the_go_sdks_string_is_the_one_that_is_signed(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    vectors = published(GO_SIGNED)
    case = vectors["authorization_format_cases"][index]
    ours = wire(
        float(case["timestamp"]),
        private_key=vectors["private_key_pem"],
        mchid=case["mchid"],
        merchant_serial=case["serial_no"],
    )
    monkeypatch.setattr(wechatpay_wire, "token_hex", lambda _: case["nonce_str"])
    authorization = ours._headers(case["method"], case["canonical_url"], case["body"].encode())["Authorization"]
    key = load_private_key(vectors["private_key_pem"], "private_key")
    assert f'signature="{sign(key, case["string_to_sign"].encode())}"' in authorization


# -- what they sign ----------------------------------------------------------------------------------------------------


def test_the_documentations_response_verifies_and_its_changes_do_not() -> None:
    vectors = published(DOC_ANSWER)
    headers = {**lower(vectors["headers"]), "wechatpay-serial": PUBLIC_KEY_ID}
    signed_at = float(vectors["headers"]["Wechatpay-Timestamp"])
    ours = wire(signed_at, public_keys={PUBLIC_KEY_ID: vectors["public_key_pem"]})
    ours.verify(Response(status=200, headers=headers, body=vectors["body"].encode()), at(signed_at))
    for negative in vectors["negatives"]:
        changed = {f"wechatpay-{name}": negative[name] for name in ("nonce", "timestamp") if name in negative}
        answer = Response(status=200, headers=headers | changed, body=negative.get("body", vectors["body"]).encode())
        with pytest.raises(ChannelUnreadable):
            ours.verify(answer, at(negative.get("now", signed_at)))


def test_the_java_sdks_signature_verifies_with_its_certificate_and_with_no_other_key() -> None:
    vectors = published(JAVA_SIGNED)
    certificate = load_certificate(vectors["certificate_pem"], "certificate")
    wrong = load_public_key(vectors["wrong_public_key_pem"], "wrong")
    message, signature = vectors["message"].encode(), vectors["signature_base64"]
    assert serial_of(certificate) == vectors["certificate_serial_hex"]
    assert is_signed(load_public_key(_public_pem(certificate), "right"), signature, message)
    assert not is_signed(wrong, signature, message)


def test_the_go_sdks_signature_verifies_and_its_changes_do_not() -> None:
    vectors = published(GO_SIGNED)
    certificate = load_certificate(vectors["certificate_pem"], "certificate")
    key = load_public_key(_public_pem(certificate), "key")
    assert is_signed(key, vectors["expected_signature_base64"], vectors["message"].encode())
    for negative in (one for one in vectors["negatives"] if "serial" not in one):
        signature = negative.get("signature", vectors["expected_signature_base64"])
        assert not is_signed(key, signature, negative.get("message", vectors["message"]).encode())


def test_the_go_sdks_callback_verifies_by_the_serial_of_its_certificate() -> None:
    vectors = published(GO_CALLBACK)
    ring = KeyRing({}, [load_certificate(vectors["certificate_pem"], "certificate")])
    headers, body = lower(vectors["headers"]), vectors["body"].encode()
    assert ring.signed_at("callback", headers, body, at(vectors["clock"])) == vectors["clock"]
    changed = next(negative["body"] for negative in vectors["negatives"] if "body" in negative)
    assert ring.signed_at("callback", headers, changed.encode(), at(vectors["clock"])) is None
    other = next(negative for negative in vectors["negatives"] if "Wechatpay-Signature-Type" in negative)
    other_type = headers | {"wechatpay-signature-type": other["Wechatpay-Signature-Type"]}
    assert ring.signed_at("callback", other_type, body, at(vectors["clock"])) is None


def test_a_callback_with_escaped_slashes_verifies_over_its_raw_bytes_alone() -> None:
    vectors = published(PHP_CALLBACK)
    headers, callback = lower(vectors["callback"]["headers"]), vectors["callback"]
    certificate = load_certificate(vectors["certificate_pem"], "certificate")
    ring = KeyRing({headers["wechatpay-serial"]: load_public_key(_public_pem(certificate), "key")})
    moment = at(callback["clock"])
    assert ring.signed_at("callback", headers, callback["raw_body"].encode(), moment) == callback["clock"]
    reserialised = vectors["negatives"][0]["raw_body"].encode()
    assert ring.signed_at("callback", headers, reserialised, moment) is None


def test_a_request_of_the_php_sdk_verifies() -> None:
    vectors = published(PHP_CALLBACK)
    certificate = load_certificate(vectors["certificate_pem"], "certificate")
    signature = vectors["request"]["authorization"].partition('signature="')[2].rstrip('"')
    string = vectors["request"]["string_to_sign"].encode()
    assert is_signed(load_public_key(_public_pem(certificate), "key"), signature, string)


# -- what is sealed ----------------------------------------------------------------------------------------------------


def _sealed(case: dict[str, Any]) -> Sealed:
    return Sealed(
        algorithm="AEAD_AES_256_GCM",
        ciphertext=case["ciphertext_base64"],
        nonce=case["nonce"],
        associated_data=case["associated_data"],
    )


def test_the_java_sdks_message_unseals_and_its_changes_do_not() -> None:
    vectors = published(JAVA_SEALED)
    key, small = seal_key(vectors["apiv3_key_ascii"], "apiv3_key"), vectors["cases"][0]
    assert unseal(key, _sealed(small)).decode() == small["expected_plaintext"]
    for negative in vectors["negatives"]:
        changed = small | negative
        if "ciphertext_hex" in negative:
            changed["ciphertext_base64"] = base64.b64encode(bytes.fromhex(negative["ciphertext_hex"])).decode()
        with pytest.raises(ChannelUnreadable):
            unseal(key, _sealed(changed))


def test_the_java_sdks_list_of_certificates_is_read() -> None:
    vectors = published(JAVA_SEALED)
    key, case = seal_key(vectors["apiv3_key_ascii"], "apiv3_key"), vectors["cases"][1]
    (found,) = read_certificates(case["response_body"].encode(), key, datetime(2024, 1, 1, tzinfo=UTC))
    assert serial_of(found) == case["expected_certificate_serial_hex"]
    assert case["expected_subject_cn"] in found.subject.rfc4514_string()
    assert read_certificates(case["response_body"].encode(), key, datetime(2040, 1, 1, tzinfo=UTC)) == []


def test_the_go_sdks_callback_unseals_and_its_short_key_opens_no_account() -> None:
    """It has 16 bytes, which would be a valid and weaker AES key."""
    vectors = published(GO_CALLBACK)
    key, resource = AESGCM(vectors["apiv3_key_ascii"].encode()), vectors["body"].partition('"resource":')[2]
    fields = {name: resource.partition(f'"{name}":"')[2].partition('"')[0] for name in Sealed.__struct_fields__}
    sealed = Sealed(**fields)
    assert unseal(key, sealed).decode() == vectors["expected_plaintext"]
    for negative in vectors["negatives"]:
        changes = {name.removeprefix("resource."): negative[name] for name in negative if name.startswith("resource.")}
        if changes:
            with pytest.raises(ChannelUnreadable):
                unseal(key, Sealed(**{**fields, **changes}))
    with pytest.raises(ConfigurationError, match="32 bytes"):
        seal_key(vectors["apiv3_key_ascii"], "apiv3_key")


def test_the_php_sdks_callback_unseals() -> None:
    vectors = published(PHP_CALLBACK)
    callback = vectors["callback"]
    resource = callback["raw_body"].replace("\\/", "/").partition('"resource":')[2]
    fields = {name: resource.partition(f'"{name}":"')[2].partition('"')[0] for name in Sealed.__struct_fields__}
    plain = unseal(seal_key(callback["apiv3_key_ascii"], "apiv3_key"), Sealed(**fields))
    assert plain.decode().startswith(callback["expected_plaintext_starts_with"])
    assert sha256(plain).hexdigest() == callback["expected_plaintext_sha256"]


def _public_pem(certificate: Certificate) -> str:
    encoded = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*encoded).decode()
