"""Names of what people do, as the audit has them: one for each act, whether the console, a program by the API or a
command does it. Beside each is a sentence for people, and the names that earlier releases wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ActName(StrEnum):
    """The thing, in the singular unless it is about many at once, and what is done to it."""

    ORDER_QUERY = "order.query"
    ORDER_CLOSE = "order.close"
    ORDER_ACCEPT = "order.accept"
    ORDER_REFUND = "order.refund"
    ORDER_ATTACH = "order.attach"
    ORDER_LOOKUP = "order.lookup"
    ORDER_EXPORT = "order.export"
    ORDER_ERASE = "order.erase"
    ORDERS_FILE = "orders.csv"

    REFUND_APPROVE = "refund.approve"
    REFUND_DECLINE = "refund.decline"

    CASE_ASSIGN = "case.assign"
    CASE_RESOLVE = "case.resolve"

    NOTIFICATION_RESEND = "notification.resend"
    NOTIFICATIONS_RESEND = "notifications.resend"
    ENDPOINT_PAUSE = "endpoint.pause"
    ENDPOINT_RESUME = "endpoint.resume"

    CALLBACK_RAW = "callback.raw"
    CALLBACK_EXPLAIN = "callback.explain"

    DAY_SIGN_OFF = "day.sign_off"
    DAYS_FILE = "days.csv"
    STATEMENT_READ = "statement.read"
    STATEMENT_UPLOAD = "statement.upload"
    STATEMENT_CONFIRM = "statement.confirm"
    DIFFERENCES_FILE = "differences.csv"

    ACCOUNT_ADD = "account.add"
    ACCOUNT_ROTATE = "account.rotate"
    ACCOUNT_ENABLE = "account.enable"
    ACCOUNT_DISABLE = "account.disable"
    SECRETS_RESEAL = "secrets.reseal"

    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    SECRET_SET = "secret.set"  # noqa: S105 - a name
    SECRET_ROTATE = "secret.rotate"  # noqa: S105 - a name
    SECRET_RETIRE = "secret.retire"  # noqa: S105 - a name
    SECRET_REMOVE = "secret.remove"  # noqa: S105 - a name

    OPERATOR_ADD = "operator.add"
    OPERATOR_ROLE = "operator.role"
    OPERATOR_DISABLE = "operator.disable"
    OPERATOR_ENABLE = "operator.enable"
    OPERATOR_RESET = "operator.reset"
    OPERATOR_PASSWORD = "operator.password"  # noqa: S105 - a name
    OPERATOR_CODES_ON = "operator.codes_on"
    OPERATOR_CODES_OFF = "operator.codes_off"
    OPERATOR_END_SESSION = "operator.end_session"
    SIGN_IN = "sign_in"
    SIGN_IN_FAILED = "sign_in.failed"
    SIGN_OUT = "sign_out"

    ALERT_TEST = "alert.test"
    AUDIT_FILE = "audit.csv"


ACTS: Mapping[ActName, str] = MappingProxyType(
    {
        ActName.ORDER_QUERY: "Ask the channels about an order",
        ActName.ORDER_CLOSE: "End an order",
        ActName.ORDER_ACCEPT: "Accept money that came late",
        ActName.ORDER_REFUND: "Give back money",
        ActName.ORDER_ATTACH: "Give unknown money to an order",
        ActName.ORDER_LOOKUP: "Ask a channel about an unknown number",
        ActName.ORDER_EXPORT: "Print all that is stored about an order",
        ActName.ORDER_ERASE: "Erase what is personal about an order",
        ActName.ORDERS_FILE: "Take a file of orders",
        ActName.REFUND_APPROVE: "Agree to a refund",
        ActName.REFUND_DECLINE: "Decline a refund",
        ActName.CASE_ASSIGN: "Take a case, or give it away",
        ActName.CASE_RESOLVE: "Answer a case",
        ActName.NOTIFICATION_RESEND: "Send a notification again",
        ActName.NOTIFICATIONS_RESEND: "Send many notifications again",
        ActName.ENDPOINT_PAUSE: "Pause an endpoint",
        ActName.ENDPOINT_RESUME: "Resume an endpoint",
        ActName.CALLBACK_RAW: "Look at a raw callback",
        ActName.CALLBACK_EXPLAIN: "Verify a callback again",
        ActName.DAY_SIGN_OFF: "Sign a day off",
        ActName.DAYS_FILE: "Take a file of days",
        ActName.STATEMENT_READ: "Have a statement read",
        ActName.STATEMENT_UPLOAD: "Upload a statement",
        ActName.STATEMENT_CONFIRM: "Do what the preview of a statement has shown",
        ActName.DIFFERENCES_FILE: "Take a file of differences",
        ActName.ACCOUNT_ADD: "Add or replace an account",
        ActName.ACCOUNT_ROTATE: "Replace the credentials of an account",
        ActName.ACCOUNT_ENABLE: "Switch an account on",
        ActName.ACCOUNT_DISABLE: "Switch an account off",
        ActName.SECRETS_RESEAL: "Seal all secrets under another master key",
        ActName.KEY_CREATE: "Make an API key",
        ActName.KEY_REVOKE: "End an API key",
        ActName.SECRET_SET: "Give a host a notification secret",
        ActName.SECRET_ROTATE: "Give a host a second notification secret",
        ActName.SECRET_RETIRE: "End a host's older notification secret",
        ActName.SECRET_REMOVE: "End a host's own notification secrets",
        ActName.OPERATOR_ADD: "Add an operator",
        ActName.OPERATOR_ROLE: "Change an operator's role",
        ActName.OPERATOR_DISABLE: "Disable an operator",
        ActName.OPERATOR_ENABLE: "Enable an operator",
        ActName.OPERATOR_RESET: "Give an operator a one-time password",
        ActName.OPERATOR_PASSWORD: "Change one's own password",
        ActName.OPERATOR_CODES_ON: "Begin to sign in with codes",
        ActName.OPERATOR_CODES_OFF: "Sign in without codes from now on",
        ActName.OPERATOR_END_SESSION: "End one of one's own sessions",
        ActName.SIGN_IN: "Sign in",
        ActName.SIGN_IN_FAILED: "Fail to sign in",
        ActName.SIGN_OUT: "Sign out",
        ActName.ALERT_TEST: "Send a test alert",
        ActName.AUDIT_FILE: "Take a file of the audit",
    }
)
"""Each act in words."""

EARLIER: Mapping[str, ActName] = MappingProxyType(
    {
        # commands
        "orders refresh": ActName.ORDER_QUERY,
        "orders close": ActName.ORDER_CLOSE,
        "orders accept": ActName.ORDER_ACCEPT,
        "orders refund": ActName.ORDER_REFUND,
        "orders attach": ActName.ORDER_ATTACH,
        "orders export": ActName.ORDER_EXPORT,
        "orders erase": ActName.ORDER_ERASE,
        "approvals approve": ActName.REFUND_APPROVE,
        "approvals decline": ActName.REFUND_DECLINE,
        "cases assign": ActName.CASE_ASSIGN,
        "cases resolve": ActName.CASE_RESOLVE,
        "notifications resend": ActName.NOTIFICATIONS_RESEND,
        "dead-letters resend": ActName.NOTIFICATIONS_RESEND,
        "endpoints pause": ActName.ENDPOINT_PAUSE,
        "endpoints resume": ActName.ENDPOINT_RESUME,
        "callbacks show": ActName.CALLBACK_RAW,
        "callbacks explain": ActName.CALLBACK_EXPLAIN,
        "days sign-off": ActName.DAY_SIGN_OFF,
        "reconcile": ActName.STATEMENT_READ,
        "accounts add": ActName.ACCOUNT_ADD,
        "accounts rotate": ActName.ACCOUNT_ROTATE,
        "accounts enable": ActName.ACCOUNT_ENABLE,
        "accounts disable": ActName.ACCOUNT_DISABLE,
        "accounts reseal": ActName.SECRETS_RESEAL,
        "keys create": ActName.KEY_CREATE,
        "keys revoke": ActName.KEY_REVOKE,
        "secrets set": ActName.SECRET_SET,
        "secrets rotate": ActName.SECRET_ROTATE,
        "secrets retire": ActName.SECRET_RETIRE,
        "secrets remove": ActName.SECRET_REMOVE,
        "operators add": ActName.OPERATOR_ADD,
        "operators role": ActName.OPERATOR_ROLE,
        "operators disable": ActName.OPERATOR_DISABLE,
        "operators enable": ActName.OPERATOR_ENABLE,
        "operators reset": ActName.OPERATOR_RESET,
        "alerts test": ActName.ALERT_TEST,
        # operations of the API
        "orders_close": ActName.ORDER_CLOSE,
        "money_refund": ActName.ORDER_REFUND,
        "money_approve": ActName.REFUND_APPROVE,
        "money_decline": ActName.REFUND_DECLINE,
        "money_accept": ActName.ORDER_ACCEPT,
        "money_attach": ActName.ORDER_ATTACH,
        "money_ask": ActName.ORDER_LOOKUP,
        "money_resolve": ActName.CASE_RESOLVE,
        "money_enable": ActName.ACCOUNT_ENABLE,
        "money_disable": ActName.ACCOUNT_DISABLE,
        "deliveries_resend": ActName.NOTIFICATION_RESEND,
        "deliveries_resend_many": ActName.NOTIFICATIONS_RESEND,
        "deliveries_pause": ActName.ENDPOINT_PAUSE,
        "deliveries_resume": ActName.ENDPOINT_RESUME,
        "callbacks_explain_callback": ActName.CALLBACK_EXPLAIN,
        # the console
        "cases.assign": ActName.CASE_ASSIGN,
        "cases.resolve": ActName.CASE_RESOLVE,
        "days.sign_off": ActName.DAY_SIGN_OFF,
        "days.read_again": ActName.STATEMENT_READ,
        "days.upload": ActName.STATEMENT_UPLOAD,
        "days.confirm_statement": ActName.STATEMENT_CONFIRM,
        "reconciliation.csv": ActName.DIFFERENCES_FILE,
        "operators.add": ActName.OPERATOR_ADD,
        "operators.role": ActName.OPERATOR_ROLE,
        "operators.disable": ActName.OPERATOR_DISABLE,
        "operators.enable": ActName.OPERATOR_ENABLE,
        "operators.reset": ActName.OPERATOR_RESET,
        "operators.password": ActName.OPERATOR_PASSWORD,
        "operators.codes_on": ActName.OPERATOR_CODES_ON,
        "operators.codes_off": ActName.OPERATOR_CODES_OFF,
        "operators.end_session": ActName.OPERATOR_END_SESSION,
        "alerts.test": ActName.ALERT_TEST,
    }
)
"""Names in rows that are older than this list: the words of a command, an operation id, and the console's first ones.
Rows are never changed, so they keep them."""


def act_of(written: str) -> ActName | None:
    """The act of a row, by the name in it, of today or earlier; None: no release of ours wrote it."""
    try:
        return ActName(written)
    except ValueError:
        return EARLIER.get(written)


def names_of(written: str) -> tuple[str, ...]:
    """All names under which rows have the act of this name, its own first; what is no name stands for itself."""
    act = act_of(written)
    if act is None:
        return (written,)
    return (act.value, *(name for name, earlier in EARLIER.items() if earlier is act))
