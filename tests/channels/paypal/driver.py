"""PayPal's side, written from its documentation only. Responses are not signed, callbacks by a certificate's key.

Both keys of an account are certificates of the same authority: an account pins the authority and not the key.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import IO, Any, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from channels.base import Acknowledgement, StatementRow
from core.account import AccountConfig
from core.errors import CallbackRejected, ChannelUnavailable
from simulator.kernel.base import Account
from simulator.kernel.faults import CallKind
from tests.channels.driver import Driver
from tests.channels.reports import (
    AMOUNT,
    NUMBER,
    OFFLINE_URL,
    OTHER_NUMBER,
    PAID_AT,
    REFUND_NO,
    BadCredential,
    CallbackRequest,
    Key,
    PaymentReport,
    Reportable,
)
from tests.channels.wire import WireRequest, WireResponse

CERTIFICATES = "/v1/notifications/certs/"
SANDBOX_NAME = "messageverificationcerts.sandbox.paypal.com"
WEBHOOK_ID = "4JH86294D6297924G"
CLIENT_ID = "AXy-0123456789_a-client-of-tests-only"
CLIENT_SECRET = "EXy-0123456789_a-secret-of-tests-only"
OTHER_AUTHORITY, EXPIRED = "CERT-other-authority", "CERT-expired"
OTHER_NAME, OTHER_SUBJECT = "CERT-other-name", "CERT-other-subject"
IDS = {Key.NEW: "CERT-1a2b3c4d-2", Key.OLD: "CERT-1a2b3c4d-1", Key.STRANGER: "CERT-1a2b3c4d-2"}

_ORDER = {"unpaid": "PAYER_ACTION_REQUIRED", "agreed": "APPROVED", "paid": "COMPLETED", "refunded": "COMPLETED"}
_NO_DECIMALS = ("HUF", "JPY", "TWD")


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(
    key: rsa.RSAPrivateKey,
    *,
    name: str = SANDBOX_NAME,
    common_name: str = "",
    issuer: x509.Certificate | None = None,
    issuer_key: rsa.RSAPrivateKey | None = None,
    until: datetime = datetime(2099, 1, 1, tzinfo=UTC),
) -> x509.Certificate:
    """A signing certificate; without an issuer an authority of its own. From long before the day that tests play on."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or name)])
    signing = issuer_key or key
    issued = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is None:
        issued = issued.add_extension(_usage(is_authority=True), critical=True)
    else:
        issued = issued.add_extension(_usage(is_authority=False), critical=True)
        issued = issued.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        issued = issued.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return issued.sign(signing, SHA256())


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(issued: x509.Certificate) -> str:
    return issued.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: rsa.RSAPrivateKey) -> str:
    encoded = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*encoded).decode()


class Keys(NamedTuple):
    """All keys of a session. `served` are the certificates at PayPal's address, by id."""

    authority: x509.Certificate
    authority_key: rsa.RSAPrivateKey
    signing: dict[Key, rsa.RSAPrivateKey]
    served: dict[str, x509.Certificate]


@cache
def keys() -> Keys:
    authority_key = new_key()
    authority = certificate(authority_key, name="Authority")
    signing = {key: new_key() for key in Key}
    other_key = new_key()
    other = certificate(other_key, name="Authority")
    of = signing[Key.NEW]
    long_ago = datetime(2026, 11, 1, tzinfo=UTC)
    served = {
        **{
            IDS[key]: certificate(signing[key], issuer=authority, issuer_key=authority_key)
            for key in (Key.NEW, Key.OLD)
        },
        OTHER_AUTHORITY: certificate(of, issuer=other, issuer_key=other_key),
        EXPIRED: certificate(of, issuer=authority, issuer_key=authority_key, until=long_ago),
        OTHER_NAME: certificate(of, name="www.sandbox.paypal.com", issuer=authority, issuer_key=authority_key),
        OTHER_SUBJECT: certificate(of, common_name="shop.example", issuer=authority, issuer_key=authority_key),
    }
    return Keys(authority, authority_key, signing, served)


def signature_headers(
    body: bytes,
    *,
    key: rsa.RSAPrivateKey,
    url: str,
    webhook_id: str = WEBHOOK_ID,
    crc32: int | None = None,
    hashed: HashAlgorithm | None = None,
    at: float | None = None,
) -> dict[str, str]:
    """PayPal's signature headers of a delivery; `crc32` replaces the body's checksum."""
    when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    id_, time = "dfb3be50-0000-11e4-8bf3-77339302725b", when.strftime("%Y-%m-%dT%H:%M:%SZ")
    checksum = (zlib.crc32(body) & 0xFFFFFFFF) if crc32 is None else crc32
    signed = key.sign(f"{id_}|{time}|{webhook_id}|{checksum}".encode(), padding.PKCS1v15(), hashed or SHA256())
    return {
        "paypal-auth-algo": "SHA256withRSA",
        "paypal-cert-url": url,
        "paypal-transmission-id": id_,
        "paypal-transmission-sig": base64.b64encode(signed).decode(),
        "paypal-transmission-time": time,
    }


def money(amount: int, currency: str) -> dict[str, str]:
    sign, left = ("-", -amount) if amount < 0 else ("", amount)
    whole = left if currency == "JPY" else left // 100
    value = str(whole) if currency in _NO_DECIMALS else f"{whole}.{left % 100:02d}"
    return {"currency_code": currency, "value": f"{sign}{value}"}


def order_id(number: str) -> str:
    """An order id in the simulated PayPal's form."""
    return base64.b32encode(number.encode()).decode().rstrip("=")


class PaypalDriver(Driver):
    channel = "paypal"
    signs_whole_body = False
    merchant_id = "P2AB3CD4EF5GH"
    other_merchant = "P9ZY8XW7VU6TS"
    currency = "USD"
    transaction = "2GG279541U471931P"
    reference = order_id(NUMBER)
    other_reference = order_id(OTHER_NUMBER)
    methods = ("checkout",)
    required = ("client_id", "client_secret", "webhook_id", "merchant_id")
    bad_credentials = (
        BadCredential("client_id", "a:canary, not an id", "client_id"),
        BadCredential("client_secret", "canary\r\nX: y", "client_secret"),
        BadCredential("client_secret", "canary", "client_secret"),
        BadCredential("webhook_id", "a|b", "webhook_id"),
        BadCredential("webhook_id", "", "webhook_id"),
        BadCredential("merchant_id", "seller@shop.example", "merchant_id"),
        BadCredential("verify_webhooks", "never", "verify_webhooks"),
        BadCredential("ca_certificates", ["canary"], "ca_certificates"),
        BadCredential("ca_certificates", "canary", "ca_certificates"),
        BadCredential("certificate_hosts", ["https://canary.example/"], "certificate_hosts"),
    )
    numbers = ("ab|cd*ef_gh-12",)

    responses_are_signed = False
    refusals_are_signed = False
    idempotency_header = "paypal-request-id"
    refusal_code = "INVALID_PARAMETER_VALUE"
    queries = Reportable(statuses=frozenset({"unpaid", "agreed", "paid", "closed", "refunded"}), listed_refund="1RF")
    needs_capture = True
    closes = False
    sent_as: Mapping[CallKind, CallKind] = {CallKind.QUERY_REFUND: CallKind.QUERY}
    checkout_kind = "redirect"
    created_fields = frozenset({"number", "merchant", "amount", "currency"})

    acknowledgement = Acknowledgement(status=200, content_type="text/plain; charset=utf-8", body=b"")
    callbacks = Reportable(statuses=frozenset({"unpaid", "agreed", "paid"}))
    tolerance_s = None
    keys_are_pinned = False
    rejections = (CallbackRejected, ChannelUnavailable)
    signature_headers = (
        "paypal-transmission-sig",
        "paypal-transmission-id",
        "paypal-transmission-time",
        "paypal-cert-url",
        "paypal-auth-algo",
    )
    bad_signatures = ("SHA1withRSA", "é" * 344, "A" * 344, "http://127.0.0.1:9" + CERTIFICATES)

    statement = (
        b'{"transaction_info":{"transaction_id":"2GG279541U471931P","transaction_event_code":"T0006",'
        b'"transaction_initiation_date":"2026-11-23T04:00:00+0000","transaction_amount":{"currency_code":"USD",'
        b'"value":"88.88"},"fee_amount":{"currency_code":"USD","value":"-3.59"},"transaction_status":"S",'
        b'"invoice_id":"0190a7c3d1f2a1b2c3d4e5f60718",'
        b'"custom_field":"0190a7c3d1f2a1b2c3d4e5f60718"}}\n'
        b'{"transaction_info":{"transaction_id":"5BF22881C1234567R","paypal_reference_id":"2GG279541U471931P",'
        b'"paypal_reference_id_type":"TXN","transaction_event_code":"T1107",'
        b'"transaction_initiation_date":"2026-11-23T04:00:01+0000","transaction_amount":{"currency_code":"USD",'
        b'"value":"-10.00"},"fee_amount":{"currency_code":"USD","value":"0.35"},"transaction_status":"S",'
        b'"invoice_id":"R-000001",'
        b'"custom_field":"0190a7c3d1f2a1b2c3d4e5f60718"}}\n'
    )
    states_totals = True
    statement_rows = (
        StatementRow(
            line=1,
            kind="payment",
            out_trade_no=NUMBER,
            channel_transaction_id="2GG279541U471931P",
            amount=AMOUNT,
            currency="USD",
            at=PAID_AT,
            fee=359,
        ),
        StatementRow(
            line=2,
            kind="refund",
            out_trade_no=NUMBER,
            channel_transaction_id="2GG279541U471931P",
            refund_no=REFUND_NO,
            channel_refund_no="5BF22881C1234567R",
            ids=(REFUND_NO,),
            amount=1000,
            currency="USD",
            at=PAID_AT + timedelta(seconds=1),
            fee=-35,
        ),
    )

    # -- the account ---------------------------------------------------------------------------------------------------

    def account(self, base_url: str, *_: Key) -> AccountConfig:
        return self._account(base_url)

    def _account(self, base_url: str, *, live: bool = False, **credentials: object) -> AccountConfig:
        return AccountConfig(
            name="main",
            channel=self.channel,
            base_url=base_url,
            live=live,
            credentials={
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "webhook_id": WEBHOOK_ID,
                "merchant_id": self.merchant_id,
                "ca_certificates": [pem(keys().authority)],
                **credentials,
            },
        )

    def simulator_account(self, callback_url: str = "") -> Account:
        own = keys()
        certificates = [
            {"id": IDS[key], "pem": pem(own.served[IDS[key]]), "key": key_pem(own.signing[key])}
            for key in (Key.NEW, Key.OLD)
        ]
        wire = {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "webhook_id": WEBHOOK_ID,
            "token_key": "what seals the tokens of tests",
            "ca": {"id": "CA", "pem": pem(own.authority), "key": key_pem(own.authority_key)},
            "certificates": certificates,
        }
        return Account(
            name="main", merchant_id=self.merchant_id, channel="paypal", callback_url=callback_url, wire=wire
        )

    def mixed_accounts(self) -> Mapping[str, AccountConfig]:
        live, test = "https://api-m.paypal.com", "https://api-m.sandbox.paypal.com"
        return {
            "a live account at the sandbox": self._account(test, live=True),
            "a test account at the live host": self._account(live),
            "a test account at the live host, with a dot": self._account(f"{live}."),
            "without TLS": self._account(test.replace("https", "http")),
            "at another port": self._account(f"{test}:8443"),
            "at another of PayPal's hosts": self._account("https://www.sandbox.paypal.com"),
            "certificates from elsewhere": self._account("", certificate_hosts=["certs.example"]),
        }

    # -- calls and answers ---------------------------------------------------------------------------------------------

    def kind(self, request: WireRequest) -> CallKind:
        path = request.target.partition("?")[0]
        if path == "/v1/oauth2/token":
            return CallKind.TOKEN
        if path.startswith("/v1/notifications/"):
            return CallKind.CERTIFICATES
        if path == "/v1/reporting/transactions":
            return CallKind.STATEMENT
        if request.method == "GET":
            return CallKind.QUERY
        ends = {"capture": CallKind.CAPTURE, "refund": CallKind.REFUND}
        return ends.get(path.rpartition("/")[2], CallKind.CREATE)

    def preceding_response(self, request: WireRequest) -> WireResponse:
        if self.kind(request) is CallKind.TOKEN:
            return WireResponse(200, {}, b'{"access_token":"a-token","token_type":"Bearer","expires_in":32400}')
        found = keys().served.get(request.target.removeprefix(CERTIFICATES))
        return WireResponse(404, {}, b"") if found is None else WireResponse(200, {}, pem(found).encode())

    def render(self, report: PaymentReport) -> bytes:
        return msgspec.json.encode(self.order(report))

    def render_created(self, report: PaymentReport, checkout: str) -> bytes:
        return msgspec.json.encode(self.order(report) | {"links": [{"href": checkout, "rel": "payer-action"}]})

    def signed_response(
        self, request: WireRequest, status: int, body: bytes, *, at: float | None = None, key: Key = Key.NEW
    ) -> WireResponse:
        del request, at, key
        return WireResponse(status, {"content-type": "application/json"}, body)

    def missing_response(self, request: WireRequest) -> WireResponse:
        return self.signed_response(request, 404, error("RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"))

    def refusal_response(self, request: WireRequest, code: str) -> WireResponse:
        return self.signed_response(request, 422, error("UNPROCESSABLE_ENTITY", code))

    def with_response_signature(self, response: WireResponse, text: str) -> WireResponse:
        raise AssertionError(f"{response} has no signature to be {text!r}")

    def unclear_responses(self, request: WireRequest) -> Mapping[str, WireResponse]:
        order = self.order(PaymentReport())
        unit = order["purchase_units"][0]
        capture = unit["payments"]["captures"][0]

        def changed_order(**changed: object) -> WireResponse:
            return self.signed_response(request, 200, msgspec.json.encode(order | changed))

        return {
            "another order of the same number": changed_order(id=self.other_reference),
            "completed, and no capture": changed_order(purchase_units=[unit | {"payments": {}}]),
            "two captures": changed_order(purchase_units=[unit | {"payments": {"captures": [capture, capture]}}]),
            "two units": changed_order(purchase_units=[unit, unit]),
            "no unit": changed_order(purchase_units=[]),
            "not allowed": self.signed_response(request, 403, error("NOT_AUTHORIZED", "PERMISSION_DENIED")),
            "no debug id": self.signed_response(request, 404, b'{"name":"RESOURCE_NOT_FOUND"}'),
            "another request under way": self.signed_response(request, 409, error("RESOURCE_CONFLICT")),
        }

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def render_callback(self, report: PaymentReport, notification_id: str) -> bytes:
        if report.status == "agreed":
            return event(notification_id, "CHECKOUT.ORDER.APPROVED", self.order(report))
        names = {"paid": "COMPLETED", "unpaid": "PENDING"}
        capture = self.capture(report) | {"status": names.get(report.status, report.status)}
        type_ = "PAYMENT.CAPTURE.PENDING" if report.status == "unpaid" else "PAYMENT.CAPTURE.COMPLETED"
        return event(notification_id, type_, capture)

    def sign_callback(
        self, content: bytes, notification_id: str, *, at: float | None = None, key: Key = Key.NEW
    ) -> CallbackRequest:
        del notification_id
        url = f"{OFFLINE_URL}{CERTIFICATES}{IDS[key]}"
        return CallbackRequest(signature_headers(content, key=keys().signing[key], url=url, at=at), content)

    def at_another_time(self, callback: CallbackRequest, at: float) -> CallbackRequest:
        text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return callback._replace(headers=callback.headers | {"paypal-transmission-time": text})

    def forged(self, *, at: float) -> Mapping[str, CallbackRequest]:
        """Forged deliveries: another webhook, certificate, address or algorithm."""
        content, signing = self.render_callback(PaymentReport(), self.notification_id), keys().signing[Key.NEW]
        at_paypal = f"{OFFLINE_URL}{CERTIFICATES}"

        def callback(id_: str = IDS[Key.NEW], **how: Any) -> CallbackRequest:
            return CallbackRequest(signature_headers(content, key=signing, url=at_paypal + id_, at=at, **how), content)

        crc32 = zlib.crc32(content)
        return {
            "another webhook's": callback(webhook_id="4JH86294D6297924X"),
            "signed with SHA-1": callback(hashed=SHA1()),  # noqa: S303 - what must not verify
            "that says SHA-1": callback()._replace(headers=callback().headers | {"paypal-auth-algo": "SHA1withRSA"}),
            "the checksum of another body": callback(crc32=crc32 ^ 1),
            "a checksum with a sign": callback(crc32=crc32 - (1 << 32)),
            "a certificate of another authority": callback(OTHER_AUTHORITY),
            "a certificate that is over": callback(EXPIRED),
            "a certificate of another name": callback(OTHER_NAME),
            "a certificate whose subject is somebody else": callback(OTHER_SUBJECT),
            "a certificate that is not there": callback("CERT-none"),
        }

    def unreadable(self, *, at: float) -> Mapping[str, CallbackRequest]:
        pending = self.capture(PaymentReport()) | {"status": "PENDING"}
        bare = self.capture(PaymentReport()) | {"create_time": "2026-11-23T04:00:00"}
        contents = {
            "completed and pending at once": event("WH-1", "PAYMENT.CAPTURE.COMPLETED", pending),
            "a time without a zone": event("WH-1", "PAYMENT.CAPTURE.COMPLETED", bare),
            "no resource": event("WH-1", "PAYMENT.CAPTURE.COMPLETED", None),
        }
        return {name: self.sign_callback(content, "WH-1", at=at) for name, content in contents.items()}

    def unrelated(self, *, at: float) -> Mapping[str, CallbackRequest]:
        contents = {
            "a plan": event("WH-1", "BILLING.PLAN.CREATED", {"id": "P-1"}),
            "a subscription": event("WH-1", "BILLING.SUBSCRIPTION.ACTIVATED", {"id": "I-1"}),
            "a payout": event("WH-1", "PAYMENT.PAYOUTSBATCH.SUCCESS", {"id": "1"}),
        }
        return {name: self.sign_callback(content, "WH-1", at=at) for name, content in contents.items()}

    def other_forms(self, *, at: float) -> Mapping[str, tuple[CallbackRequest, tuple[str, ...]]]:
        approved = self.order(PaymentReport(status="agreed"))
        several = approved | {"purchase_units": approved["purchase_units"] * 2}
        sale = {"id": "7SALE", "invoice_number": "2026/42", "custom": "user 42", "parent_payment": "PAY-1"}
        related = {"id": "1", "supplementary_data": {"related_ids": {"order_id": "5ORDER"}}}
        contents: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
            "an order of two units": ("CHECKOUT.ORDER.APPROVED", several, (NUMBER, self.reference)),
            "a sale of the older API": ("PAYMENT.SALE.COMPLETED", sale, ("2026/42", "user 42", "PAY-1", "7SALE")),
            "an authorization": ("PAYMENT.AUTHORIZATION.CREATED", related, ("5ORDER", "1")),
            "a refund for nothing named": ("PAYMENT.CAPTURE.REFUNDED", {"id": "1"}, ("1",)),
        }
        return {
            name: (self.sign_callback(event("WH-1", type_, resource), "WH-1", at=at), ids)
            for name, (type_, resource, ids) in contents.items()
        }

    def lapsed(self, *, at: float) -> CallbackRequest:
        """As in https://developer.paypal.com/docs/checkout/apm/reference/handle-uncaptured-payments/"""
        unit = self.order(PaymentReport(status="agreed"))["purchase_units"][0]
        resource = {"order_id": self.reference, "purchase_units": [unit], "payment_source": {"ideal": {"name": "J"}}}
        return self.sign_callback(event("WH-1", "CHECKOUT.PAYMENT-APPROVAL.REVERSED", resource), "WH-1", at=at)

    # -- statements ----------------------------------------------------------------------------------------------------

    def malformed_statements(self) -> Mapping[str, bytes]:
        altered = {
            "full-width digits": (b"88.88", "８８.８８".encode()),
            "an underscore": (b"88.88", b"8_8.88"),
            "a plus": (b"88.88", b"+88.88"),
            "two minuses": (b"88.88", b"--88.88"),
            "an exponent": (b"88.88", b"8.888E1"),
            "too many places": (b"88.88", b"88.885"),
            "no amount": (b"88.88", b""),
            "no zone": (b"04:00:00+0000", b"04:00:00"),
            "no instant": (b"2026-11-23T04:00:00+0000", b"yesterday"),
            "a day that is none": (b"2026-11-23T04:00:00+0000", b"2026-02-30T04:00:00+0000"),
            "no transaction": (b'"transaction_id":"2GG279541U471931P",', b""),
            "a code that is none": (b"T0006", b"T06"),
            "cut off": (b'"transaction_status":"S",', b""),
        }
        return {name: self.statement.replace(old, new, 1) for name, (old, new) in altered.items()}

    def no_statements(self) -> Mapping[str, bytes]:
        return {"a list": b"[" + self.statement, "another object": b'{"transactions":[]}\n' + self.statement}

    def same_statements(self) -> Mapping[str, bytes]:
        fee = b'{"transaction_info":{"transaction_event_code":"T0400"}}\n'
        payout = b'{"transaction_info":{"transaction_event_code":"T0001","transaction_amount":{"value":"-5.00"}}}\n'
        denied = b'{"transaction_info":{"transaction_event_code":"T0006","transaction_status":"D"}}\n'
        return {
            "with the number that PayPal states": self.statement + b'{"total_items":2}\n',
            "with transactions that are no payments": self.statement + fee + payout + denied + b'{"total_items":5}\n',
        }

    def write_statement(self, into: IO[bytes], rows: int) -> None:
        row = self.statement.partition(b"\n")[0] + b"\n"
        for _ in range(rows):
            into.write(row)

    # -- what both tell ------------------------------------------------------------------------------------------------

    def order(self, report: PaymentReport) -> dict[str, Any]:
        unit: dict[str, Any] = {
            "reference_id": "default",
            "amount": money(report.amount, report.currency or self.currency),
            "payee": {"merchant_id": report.merchant or self.merchant_id},
            "custom_id": report.number,
            "invoice_id": report.number,
        }
        if report.status in ("paid", "refunded"):
            unit["payments"] = {"captures": [self.capture(report)], "refunds": self._refunds(report)}
        status = {"closed": "VOIDED", **_ORDER}.get(report.status, report.status)
        reference = self.other_reference if report.number == OTHER_NUMBER else self.reference
        link = {"href": "https://www.sandbox.paypal.com/checkoutnow?token=1", "rel": "payer-action", "method": "GET"}
        return {"id": reference, "intent": "CAPTURE", "status": status, "purchase_units": [unit], "links": [link]}

    def capture(self, report: PaymentReport) -> dict[str, Any]:
        whole = "REFUNDED" if report.refunded >= report.amount else "PARTIALLY_REFUNDED"
        return {
            "id": self.transaction if report.transaction is None else report.transaction,
            "status": whole if report.status == "refunded" else "COMPLETED",
            "amount": money(report.amount, report.currency or self.currency),
            "payee": {"merchant_id": report.merchant or self.merchant_id},
            "custom_id": report.number,
            "invoice_id": report.number,
            "create_time": "2026-11-23T04:00:00Z",
        }

    def _refunds(self, report: PaymentReport) -> list[dict[str, Any]]:
        if report.status != "refunded":
            return []
        given_back = money(report.refunded, report.currency or self.currency)
        return [{"id": "1RF", "status": "COMPLETED", "amount": given_back, "invoice_id": REFUND_NO}]


def event(id_: str, type_: str, resource: object) -> bytes:
    return msgspec.json.encode(
        {"id": id_, "event_type": type_, "create_time": "2026-11-23T04:00:01Z", "resource": resource}
    )


def error(name: str, issue: str = "") -> bytes:
    details = [{"issue": issue, "description": "no"}] if issue else []
    return msgspec.json.encode({"name": name, "message": "no", "debug_id": "90957fca61718", "details": details})
