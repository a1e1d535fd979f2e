"""WeChat Pay's bill of a day (交易账单): of all transactions, payments or refunds; today's or the ordinary format.

https://pay.weixin.qq.com/docs/merchant/apis/native-payment/get-trade-bill.html: unquoted cells behind a backquote, and
in the last two lines the sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulator.kernel.base import Account
from simulator.kernel.ledger import Row
from simulator.wechatpay.bodies import BEIJING, refund_id
from simulator.wechatpay.wire import keys_of

TYPES = {"": ("payment", "refund"), "ALL": ("payment", "refund"), "SUCCESS": ("payment",), "REFUND": ("refund",)}
"""Kinds of rows by `bill_type`."""

_START = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类"
)
_REFUND_TIMES = "退款申请时间,退款成功时间"
_END = "商品名称,商户数据包,手续费,费率"
_AMOUNTS = {False: "应结订单金额,代金券金额", True: "总金额,代金券或立减优惠金额"}
_REFUNDS = {
    False: "微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态",
    True: "微信退款单号,商户退款单号,退款金额,代金券或立减优惠退款金额,退款类型,退款状态",
}
_SUMS = {
    False: "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额",
    True: "总交易单数,总交易额,总退款金额,总代金券或立减优惠退款金额,手续费总金额",
}

Rows = Sequence[Row | tuple[str, ...]]


def bill(rows: Rows, counted: Rows, account: Account, bill_type: str) -> bytes:
    """Return the bill with these rows; its sums are those of the `counted` rows. A byte order mark begins it."""
    ordinary, kinds = keys_of(account).ordinary_bill, TYPES[bill_type]
    shown = [row for row in rows if row[0] in kinds]
    lines = [",".join(_columns(bill_type, ordinary=ordinary))]
    lines += [_line(_cells(row, account, bill_type) if isinstance(row, Row) else row) for row in shown]
    sums = _sums([row for row in counted if row[0] in kinds], ordinary=ordinary)
    return ("\ufeff" + "\r\n".join([*lines, _SUMS[ordinary], _line(sums)]) + "\r\n").encode()


def _columns(bill_type: str, *, ordinary: bool) -> list[str]:
    """Return the names; bills of payments alone have no columns of refunds, those of refunds alone have more."""
    names = [_START, _AMOUNTS[ordinary]]
    names += [_REFUND_TIMES] if bill_type == "REFUND" else []
    names += [_REFUNDS[ordinary]] if bill_type != "SUCCESS" else []
    names += [_END]
    if not ordinary:
        names += ["订单金额", *(["申请退款金额"] if bill_type != "SUCCESS" else []), "费率备注"]
    return names


def _cells(row: Row, account: Account, bill_type: str) -> list[str]:
    is_refund, keys = row.type == "refund", keys_of(account)
    amount, at = _yuan(row.amount), row.at.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    paid, given_back = ("0.00", amount) if is_refund else (amount, "0.00")
    cells = [at, keys.appid, account.merchant_id, "0", "", row.transaction_id, row.out_trade_no]
    cells += ["openid-of-a-simulated-buyer", "NATIVE", "REFUND" if is_refund else "SUCCESS", "OTHERS", row.currency]
    cells += [paid, "0.00"]
    cells += [at, at] if bill_type == "REFUND" else []
    if bill_type != "SUCCESS":
        number = refund_id(account.merchant_id, row.refund_no)
        refund = (number, row.refund_no, given_back, "0.00", "ORIGINAL", "SUCCESS")
        cells += refund if is_refund else ("0", "0", "0.00", "0.00", "", "")
    cells += ["Tea, green", "", "0.00000", "0.60%"]
    if not keys.ordinary_bill:
        cells += [paid, *([given_back] if bill_type != "SUCCESS" else []), ""]
    return cells


def _sums(rows: Rows, *, ordinary: bool) -> list[str]:
    paid = _yuan(sum(row.amount for row in rows if isinstance(row, Row) and row.type == "payment"))
    given_back = _yuan(sum(row.amount for row in rows if isinstance(row, Row) and row.type == "refund"))
    sums = [str(len(rows)), paid, given_back, "0.00", "0.00000"]
    return sums if ordinary else [*sums, paid, given_back]


def _line(cells: Iterable[str]) -> str:
    return ",".join(f"`{cell}" for cell in cells)


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"
