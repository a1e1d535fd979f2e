"""Every address of the console, with the role that it needs. The order of the families is that of the navigation.

A row with `nav` is in the navigation. The test of routes and roles reads this table, so a new row is tested by being
here.
"""

from __future__ import annotations

from api.console import (
    accounts,
    alerts,
    answers,
    approvals,
    audit,
    callbacks,
    cases,
    certificates,
    days,
    disputes,
    endpoints,
    lookup,
    me,
    money,
    notifications,
    operators,
    order,
    orders,
    overview,
    reconciliation,
    signin,
    waiting,
)
from api.console.assets import serve_asset
from api.console.rows import Row, act, page
from api.context import Context
from api.http.response import HTML
from api.http.route import Auth, Media, Route, plain, raw_body
from core.operators import Role

_VIEWER, _OPERATOR, _ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
_PAGE = {200: Media(HTML)}

ROWS: tuple[Row, ...] = (
    # -- nobody
    Row(Route("GET", "/ops/signin", Auth.ANYONE, plain(signin.show), "The page to sign in", _PAGE)),
    Row(Route("POST", "/ops/signin", Auth.ANYONE, raw_body(signin.FORM_BYTES_MAX, signin.enter), "Sign in", _PAGE)),
    Row(Route("GET", "/ops/static/{name}", Auth.ANYONE, plain(serve_asset), "The console's files", _PAGE)),
    #
    # -- overview
    page("/ops", _VIEWER, overview.show, nav="overview"),
    page("/ops/overview/live", _VIEWER, overview.live),
    page("/ops/waiting/live", _VIEWER, waiting.live),
    #
    # -- orders: search, one order, its acts
    page("/ops/orders", _VIEWER, orders.show, nav="orders"),
    act("/ops/orders/find", _VIEWER, orders.find),
    page("/ops/orders.csv", _OPERATOR, orders.download),
    page("/ops/orders/{order_no}", _VIEWER, order.show),
    page("/ops/orders/{order_no}/live", _VIEWER, order.show_live),
    page("/ops/orders/{order_no}/query", _OPERATOR, money.ask_query),
    act("/ops/orders/{order_no}/query", _OPERATOR, money.do_query),
    page("/ops/orders/{order_no}/close", _OPERATOR, money.ask_close),
    act("/ops/orders/{order_no}/close", _OPERATOR, money.do_close),
    page("/ops/orders/{order_no}/accept", _OPERATOR, money.ask_accept),
    act("/ops/orders/{order_no}/accept", _OPERATOR, money.do_accept),
    page("/ops/orders/{order_no}/refund/{number}", _OPERATOR, money.ask_refund),
    act("/ops/orders/{order_no}/refund/{number}", _OPERATOR, money.do_refund),
    page("/ops/orders/{order_no}/attach", _OPERATOR, lookup.ask_attach),
    act("/ops/orders/{order_no}/attach", _OPERATOR, lookup.do_attach),
    page("/ops/lookup", _OPERATOR, lookup.ask_lookup, nav="lookup"),
    act("/ops/lookup", _OPERATOR, lookup.do_lookup),
    #
    # -- refunds that wait for a second operator
    page("/ops/approvals", _VIEWER, approvals.show_approvals, nav="approvals"),
    page("/ops/approvals/{approval_id}", _OPERATOR, approvals.show_approval),
    act("/ops/approvals/{approval_id}/approve", _OPERATOR, approvals.do_approve),
    act("/ops/approvals/{approval_id}/decline", _OPERATOR, approvals.do_decline),
    #
    # -- cases
    page("/ops/cases", _VIEWER, cases.show, nav="cases"),
    page("/ops/cases/{id}", _VIEWER, cases.show_one),
    act("/ops/cases/{id}/assign", _OPERATOR, cases.assign),
    page("/ops/cases/{id}/resolve", _OPERATOR, answers.ask_answer),
    act("/ops/cases/{id}/resolve", _OPERATOR, answers.do_answer),
    #
    # -- notifications and endpoints
    page("/ops/notifications", _VIEWER, notifications.show_list, nav="notifications"),
    page("/ops/notifications/resend", _OPERATOR, notifications.show_many),
    act("/ops/notifications/resend", _OPERATOR, notifications.send_many),
    page("/ops/notifications/{notification_id}", _VIEWER, notifications.show_one),
    act("/ops/notifications/{notification_id}/resend", _OPERATOR, notifications.resend_one),
    page("/ops/endpoints", _VIEWER, endpoints.show_all, nav="endpoints"),
    page("/ops/endpoints/show", _VIEWER, endpoints.show_one),
    act("/ops/endpoints/pause", _OPERATOR, endpoints.pause),
    act("/ops/endpoints/resume", _OPERATOR, endpoints.resume),
    #
    # -- callbacks
    page("/ops/callbacks", _VIEWER, callbacks.index, nav="callbacks"),
    page("/ops/callbacks/{callback_id}", _VIEWER, callbacks.show),
    act("/ops/callbacks/{callback_id}/raw", _OPERATOR, callbacks.show_raw),
    #
    # -- days: statements, closings, disputes, reconciliation
    page("/ops/days", _VIEWER, days.show, nav="days"),
    page("/ops/days.csv", _VIEWER, days.download),
    page("/ops/days/{account}/{day}", _VIEWER, days.show_one),
    page("/ops/days/{account}/{day}/requests", _VIEWER, days.show_requests),
    act("/ops/days/{account}/{day}/sign-off", _OPERATOR, days.sign_off),
    act("/ops/days/{account}/{day}/read", _OPERATOR, days.read_again),
    act("/ops/days/{account}/{day}/upload", _OPERATOR, days.upload_file, body_bytes_max=days.UPLOAD_BYTES_MAX),
    act("/ops/statements/{id}/confirm", _OPERATOR, days.confirm_request),
    page("/ops/disputes", _VIEWER, disputes.show),
    page("/ops/reconciliation", _VIEWER, reconciliation.show),
    page("/ops/reconciliation/{id}", _VIEWER, reconciliation.show_one),
    page("/ops/reconciliation/{id}/differences.csv", _OPERATOR, reconciliation.download),
    page("/ops/certificates", _VIEWER, certificates.show, nav="certificates"),
    #
    # -- accounts
    page("/ops/accounts/{name}", _VIEWER, overview.account),
    page("/ops/accounts/{name}/disable", _OPERATOR, accounts.ask_disable),
    act("/ops/accounts/{name}/disable", _OPERATOR, accounts.do_disable),
    page("/ops/accounts/{name}/enable", _OPERATOR, accounts.ask_enable),
    act("/ops/accounts/{name}/enable", _OPERATOR, accounts.do_enable),
    #
    # -- alerts
    page("/ops/alerts", _VIEWER, alerts.show, nav="alerts"),
    act("/ops/alerts/test", _ADMIN, alerts.send_test),
    #
    # -- audit
    page("/ops/audit", _OPERATOR, audit.show, nav="audit"),
    page("/ops/audit.csv", _OPERATOR, audit.download),
    #
    # -- operators
    page("/ops/operators", _ADMIN, operators.show_all, nav="operators"),
    act("/ops/operators", _ADMIN, operators.add),
    page("/ops/operators/{name}", _ADMIN, operators.show_one),
    act("/ops/operators/{name}/role", _ADMIN, operators.set_role),
    act("/ops/operators/{name}/disable", _ADMIN, operators.disable),
    act("/ops/operators/{name}/enable", _ADMIN, operators.enable),
    act("/ops/operators/{name}/reset", _ADMIN, operators.reset),
    #
    # -- the operator's own
    page("/ops/me", _VIEWER, me.show),
    act("/ops/me/password", _VIEWER, me.change_password),
    act("/ops/me/look", _VIEWER, me.set_look),
    act("/ops/me/codes", _VIEWER, me.begin_codes),
    act("/ops/me/codes/confirm", _VIEWER, me.confirm_codes),
    act("/ops/me/codes/remove", _VIEWER, me.remove_codes),
    act("/ops/me/sessions/{session_id}/end", _VIEWER, me.end_session),
    act("/ops/signout", _VIEWER, signin.leave),
)


def table() -> tuple[Route[Context], ...]:
    """The routes alone."""
    return tuple(row.route for row in ROWS)
