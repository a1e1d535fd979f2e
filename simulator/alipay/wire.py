"""Wire format of Alipay's gateway: parameters, signed responses, callbacks, and the statement in a zip file.

Written from the channel's documentation only; it shares nothing with the adapter that it checks.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from simulator.alipay.keys import Wire, serial_of, sign, wire_of
from simulator.kernel.base import Account, Event
from simulator.kernel.dispatch import Call
from simulator.kernel.ledger import Payment, PaymentStatus, Row
from simulator.kit.asgi import Request, Response

CHINA = timezone(timedelta(hours=8))
HTML = "text/html;charset="
FIELDS_MAX = 100
CHARSETS = {"utf-8": "utf-8", "gbk": "gbk", "gb2312": "gbk"}

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
_MESSAGES = {"10000": "Success", "20000": "Service Currently Unavailable", "40004": "Business Failed"}

# -- calls -------------------------------------------------------------------------------------------------------------


def parameters(request: Request) -> dict[str, str]:
    """Return the parameters of query and form, since SDKs use either or both; empty if unreadable."""
    content_type = request.headers.get("content-type", "")
    is_form = content_type.partition(";")[0].strip().lower() in ("", "application/x-www-form-urlencoded")
    return _parameters(request.query, request.body if is_form else b"")


# Every operation reads them several times.
@lru_cache(maxsize=256)
def _parameters(query: str, body: bytes) -> dict[str, str]:
    try:
        texts = (query, body.decode("ascii"))
        rough = dict(pair for text in texts for pair in parse_qsl(text, True, max_num_fields=FIELDS_MAX))
        charset = CHARSETS.get(rough.get("charset", "utf-8").lower(), "utf-8")
        pairs = [pair for text in texts for pair in parse_qsl(text, True, encoding=charset, errors="strict")]
    except ValueError:
        return {}
    return dict(pairs) if len(dict(pairs)) == len(pairs) else {}


def charset_of(given: dict[str, str]) -> str:
    return CHARSETS.get(given.get("charset", "utf-8").lower(), "utf-8")


def signed_string(given: dict[str, str]) -> bytes:
    """Return the string that the merchant has signed: all parameters but `sign` and empty ones."""
    names = sorted(name for name, value in given.items() if value and name != "sign")
    return "&".join(f"{name}={given[name]}" for name in names).encode(charset_of(given))


def content(request: Request) -> dict[str, Any]:
    """Return `biz_content`, or an empty dict if it is no object."""
    try:
        read = json.loads(parameters(request).get("biz_content", "{}"))
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def text_in(request: Request, name: str) -> str:
    """Return a field of `biz_content` as text; a number is its text."""
    value = content(request).get(name, "")
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def read_time(text: str) -> datetime | None:
    if _TIME.fullmatch(text) is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA).astimezone(UTC)
    except ValueError:
        return None


def time_text(at: datetime) -> str:
    return at.astimezone(CHINA).strftime("%Y-%m-%d %H:%M:%S")


def yuan(amount: int) -> str:
    """Format fen: 8888 → "88.88"."""
    return f"{amount // 100}.{amount % 100:02d}"


def fen(text: str) -> int | None:
    """Parse an amount into fen; None if it is not from 0.01 to 100000000.00."""
    match = re.fullmatch(r"(0|[1-9][0-9]{0,8})(?:\.([0-9]{1,2}))?", text, re.ASCII)
    amount = 0 if match is None else int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    return amount if 1 <= amount <= 10**10 else None


# -- responses ---------------------------------------------------------------------------------------------------------


def success(call: Call, **fields: object) -> Response:
    """Return a signed success."""
    return _signed(call, _outcome("10000") | fields)


def refusal(call: Call, sub_code: str, *, code: str = "40004", **fields: object) -> Response:
    """Return a signed refusal."""
    return _signed(call, _outcome(code, sub_code) | fields)


def gateway_error(given: dict[str, str], code: str, sub_code: str) -> Response:
    """Return an error of the gateway itself, unsigned since the account is not verified."""
    name = _node_name(given) if given.get("method") else "error_response"
    envelope = {name: _outcome(code, sub_code)}
    return Response(body=json.dumps(envelope, ensure_ascii=False).encode(), content_type=f"{HTML}utf-8")


def _signed(call: Call, node: dict[str, object]) -> Response:
    """Sign the text of the node, with escaped slashes, and put it into the envelope unchanged."""
    given, wire = parameters(call.request), wire_of(call.account)
    charset = charset_of(given)
    text = json.dumps(node, ensure_ascii=False, separators=(",", ":")).replace("/", r"\/")
    signature = sign(wire.alipay_private_keys[0], text.encode(charset))
    named = "" if wire.certificates is None else f',"alipay_cert_sn":"{serial_of(wire.certificates.alipay[0])}"'
    body = f'{{"{_node_name(given)}":{text}{named},"sign":"{signature}"}}'
    return Response(body=body.encode(charset), content_type=f"{HTML}{charset}")


def _outcome(code: str, sub_code: str = "") -> dict[str, object]:
    outcome: dict[str, object] = {"code": code, "msg": _MESSAGES.get(code, "Invalid Arguments")}
    return outcome | ({"sub_code": sub_code, "sub_msg": "见开放平台错误码"} if sub_code else {})


def _node_name(given: dict[str, str]) -> str:
    return re.sub(r"[^0-9a-z_]", "_", given["method"]) + "_response"


def names_its_certificates(given: dict[str, str], wire: Wire) -> bool:
    """Return whether the call names the application's certificate and Alipay's root, in certificate mode only."""
    if wire.certificates is None:
        return "app_cert_sn" not in given
    serials = [serial_of(certificate) for certificate in wire.certificates.app]
    is_known = given.get("app_cert_sn") in serials
    return is_known and given.get("alipay_root_cert_sn") == serial_of(wire.certificates.root)


# -- trades ------------------------------------------------------------------------------------------------------------


def trade_status(payment: Payment) -> str:
    """Return the status of a trade: closed is one that was never paid, or refunded in full."""
    if payment.status is PaymentStatus.CLOSED or payment.refunded_amount >= payment.terms.amount:
        return "TRADE_CLOSED"
    return "TRADE_SUCCESS" if payment.status.was_paid else "WAIT_BUYER_PAY"


def query_fields(payment: Payment) -> dict[str, object]:
    """Return the fields of a query's response. None of them shows refunds."""
    total = yuan(payment.terms.amount)
    paid = total if payment.status.was_paid else "0.00"
    fields: dict[str, object] = {
        "buyer_logon_id": "ttt***@example.com",
        "buyer_pay_amount": paid,
        "buyer_user_id": "2088000000000001",
        "invoice_amount": paid,
        "out_trade_no": payment.terms.out_trade_no,
        "point_amount": "0.00",
        "receipt_amount": paid,
        "total_amount": total,
        "trade_status": trade_status(payment),
    }
    if payment.paid_at is not None:
        fields |= {"trade_no": payment.transaction_id, "send_pay_date": time_text(payment.paid_at)}
    return fields


def callback_body(event: Event, account: Account) -> bytes:
    """Return the posted form, signed over all but `sign` and `sign_type`, in the charset that it names."""
    return signed_form(_callback_fields(event, account, wire_of(account).charset), account)


def signed_form(fields: dict[str, str], account: Account) -> bytes:
    """Return the fields as a form with their signature."""
    charset = wire_of(account).charset
    names = sorted(name for name in fields if name != "sign_type")
    string = "&".join(f"{name}={fields[name]}" for name in names).encode(charset)
    fields["sign"] = sign(wire_of(account).alipay_private_keys[0], string)
    return urlencode(fields, encoding=charset, quote_via=quote_plus).encode()


def _callback_fields(event: Event, account: Account, charset: str) -> dict[str, str]:
    payment, terms = event.payment, event.payment.terms
    total, paid_at = yuan(terms.amount), time_text(payment.paid_at or event.created_at)
    fields = {
        "gmt_create": time_text(payment.created_at),
        "charset": "GBK" if charset == "gbk" else charset,
        "gmt_payment": paid_at,
        "notify_time": time_text(event.created_at),
        "subject": terms.subject.encode(charset, "replace").decode(charset),
        "buyer_id": "2088000000000001",
        "invoice_amount": total,
        "version": "1.0",
        "notify_id": event.callback_id,
        "fund_bill_list": json.dumps([{"amount": total, "fundChannel": "ALIPAYACCOUNT"}], separators=(",", ":")),
        "notify_type": "trade_status_sync",
        "out_trade_no": terms.out_trade_no,
        "total_amount": total,
        "trade_status": trade_status(payment),
        "trade_no": payment.transaction_id or "",
        "auth_app_id": account.merchant_id,
        "receipt_amount": total,
        "point_amount": "0.00",
        "app_id": account.merchant_id,
        "buyer_pay_amount": total,
        "sign_type": "RSA2",
        "seller_id": wire_of(account).seller_id,
    }
    if event.refund is not None:
        # Sum of all refunds so far; the milliseconds are Alipay's.
        fields["refund_fee"] = yuan(payment.refunded_amount)
        fields["gmt_refund"] = f"{time_text(event.refund.refunded_at or event.created_at)}.320"
        fields["out_biz_no"] = event.refund.refund_no
        if fields["trade_status"] == "TRADE_CLOSED":
            fields["gmt_close"] = time_text(event.created_at)
    return fields


# -- the statement -----------------------------------------------------------------------------------------------------

COLUMNS = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,商家实收（元）,"
    "支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,卡消费金额（元）,"
    "退款批次号/请求号,服务费（元）,分润（元）,备注"
).split(",")
_KINDS = {"payment": "交易", "refund": "退款"}


Rows = list[Row | tuple[str, ...]]


def statement_zip(rows: Rows, counted: Rows, account: Account, day: date) -> bytes:
    """Return details and summary in a zip file: CSV in GBK, between comment lines. Its totals are of `counted` rows."""
    seller, stem = wire_of(account).seller_id, f"{wire_of(account).seller_id}0156_{day:%Y%m%d}_业务明细"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        _write(archive, f"{stem}.csv", _details(rows, counted, seller, day))
        _write(archive, f"{stem}(汇总).csv", f"#支付宝业务汇总查询\r\n#账号：[{seller}0156]\r\n")
    return packed.getvalue()


class _GbkInfo(zipfile.ZipInfo):
    """A file name in GBK without the flag for it, as Alipay writes it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile asks for it by this name
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


def _write(archive: zipfile.ZipFile, name: str, text: str) -> None:
    info = _GbkInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, text.encode("gbk", "replace"))


def _details(rows: Rows, counted: Rows, seller: str, day: date) -> str:
    text = io.StringIO()
    begins, rule = f"{day:%Y年%m月%d日} 00:00:00", "-" * 40
    text.write(
        f"#支付宝业务明细查询\r\n#账号：[{seller}0156]\r\n#起始日期：[{begins}]\r\n#{rule}业务明细列表{rule}\r\n"
    )
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(_cells(row) if isinstance(row, Row) else row)
    text.write(f"#{rule}业务明细列表结束{rule}\r\n")
    text.write(f"#交易合计：{_total(counted, 'payment', '商家实收')}，商家优惠共0.00元\r\n")
    text.write(f"#退款合计：{_total(counted, 'refund', '商家实收退款')}，商家优惠退款共0.00元\r\n")
    return text.getvalue()


def _total(counted: Rows, type_: str, name: str) -> str:
    rows = [row for row in counted if row[0] == type_]
    total = yuan(sum(row.amount for row in rows if isinstance(row, Row)))
    return f"{len(rows)}笔，{name}共{'-' if type_ == 'refund' and rows else ''}{total}元"


def _cells(row: Row) -> list[str]:
    """Return the cells of a row, numbers padded with tabs for spreadsheets; a refund has a minus."""
    amount, at = yuan(row.amount) if row.type == "payment" else f"-{yuan(row.amount)}", time_text(row.at)
    known = {
        "支付宝交易号": f"{row.transaction_id}\t",
        "商户订单号": f"{row.out_trade_no}\t",
        "业务类型": f"{_KINDS[row.type]}    ",
        "商品名称": "商品, 件",
        "创建时间": at,
        "完成时间": at,
        "对方账户": "买家 (ttt***@example.com)",
        "订单金额（元）": amount,
        "商家实收（元）": amount,
        "退款批次号/请求号": f"{row.refund_no}\t",
    }
    return [known.get(name, "0.00" if name.endswith("（元）") else "") for name in COLUMNS]
