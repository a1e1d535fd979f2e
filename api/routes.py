"""The whole surface as one table. Dispatch, authentication, body caps and OpenAPI are read from it."""

from __future__ import annotations

from functools import cache

from api import callbacks, ops
from api.context import Context
from api.http.response import HTML, JSON, TEXT
from api.http.route import Auth, Media, Route, json_body, optional_json_body, plain, query, raw_body
from api.pages import handlers as pages
from api.pages import problems, reference
from api.pages.status import PageStatus
from api.sdk import handlers as sdk
from api.v1 import alerts, audit, days, deliveries, endings, money, orders, overview, search, statements, story
from api.v1 import callbacks as received
from api.v1.alerts import AlertPage, AlertsQuery, AlertTest
from api.v1.callbacks import CallbackPage, CallbacksQuery, CallbackView, ExplanationView, RawInput, RawView
from api.v1.day_schemas import (
    AssignInput,
    CaseDetail,
    DayPage,
    DaysQuery,
    DifferencesQuery,
    DisputePage,
    DisputesQuery,
    ReconciliationDetail,
    ReconciliationPage,
    ReconciliationsQuery,
    SignedOff,
    SignOffInput,
    StatementInput,
    StatementRequestView,
)
from api.v1.overview import OverviewQuery
from api.v1.schemas import (
    ActPreview,
    CasePage,
    CasesQuery,
    CaseView,
    OrderActInput,
    OrderInput,
    OrderPage,
    OrdersQuery,
    OrderView,
    PaymentInput,
    Timeline,
)
from api.v1.search import SearchQuery
from api.v1.story_views import SearchView, StoryView
from core.act_names import ActName
from core.closing_view import DayView
from core.errors import (
    CallbackForged,
    CallbackStale,
    InvalidRequest,
    NotFound,
    NotPossible,
    NumberTaken,
    OrderClosed,
    OrderConflict,
    OrderPaid,
    PaymentRefused,
    PaymentUnclear,
    PreviewOutdated,
    RefundConflict,
    TooManyRequests,
    UnknownAccount,
)
from flows.overview import Overview
from storage.postgres.api_keys import Scope
from storage.postgres.statement_requests import FILE_BYTES_MAX

FORM_BODY_BYTES_MAX = 1024

PARAMETERS = {
    "order_no": "The merchant's order number.",
    "day": "A day of the channel's calendar: 2026-11-23.",
    "id": "The number of a case, reconciliation or request.",
    "account": "Our name of the channel account.",
    "notification_id": "The id of a notification, as in `webhook-id`.",
    "callback_id": "Our id of a callback.",
    "token": "The order's page token, from `order_page`.",
    "name": "A file's name with the hash of its content.",
    "version": "A version of the module.",
    "approval_id": "The number of a refund that waits, from `GET /v1/approvals`.",
    "slug": "The last part of a problem's `type`.",
}
"""The parameters in patterns, as OpenAPI describes them."""

_KEY, _TOKEN, _ANYONE, _SIGNED = Auth.API_KEY, Auth.PAGE_TOKEN, Auth.ANYONE, Auth.SIGNATURE
_ORDERS, _READ, _OPERATE = Scope.ORDERS, Scope.READ, Scope.OPERATE
_PAGE, _EVENTS, _TEXT, _SEE_OTHER = Media(HTML), Media("text/event-stream"), Media(TEXT), Media("")
_UNCHANGED = Media("")

_NOT_CREATED = (UnknownAccount, NumberTaken, PaymentRefused)
_NOT_DONE = (NotPossible, PreviewOutdated)
_NOT_STARTED = (OrderPaid, OrderClosed, PaymentUnclear, *_NOT_CREATED)


def console_table() -> tuple[Route[Context], ...]:
    """Every address of the console. Its modules are imported by this: a process without it does not need them."""
    from api.console import routes as console  # noqa: PLC0415

    return console.table()


@cache
def table(callback_body_bytes_max: int) -> tuple[Route[Context], ...]:
    """Every address but those of the console. The cap on callbacks is a setting."""
    # fmt: off
    return (
        # -- the merchant's backend
        Route("POST", "/v1/orders", _KEY, json_body(OrderInput, orders.place), "Place an order, and start to pay it",
              {201: OrderView, 200: OrderView}, (OrderConflict, *_NOT_CREATED),
              _ORDERS),
        Route("GET", "/v1/orders", _KEY, query(OrdersQuery, orders.find_orders), "List orders, newest first",
              {200: OrderPage}, scope=_READ),
        Route("GET", "/v1/orders/{order_no}", _KEY, plain(orders.get_order), "Get an order",
              {200: OrderView, 304: _UNCHANGED}, (NotFound,), _READ),
        Route("POST", "/v1/orders/{order_no}/payments", _KEY, json_body(PaymentInput, orders.start),
              "Start another payment of an order", {201: OrderView, 200: OrderView}, (NotFound, *_NOT_STARTED),
              _ORDERS),
        Route("POST", "/v1/orders/{order_no}/refresh", _KEY,
              optional_json_body(OrderActInput, orders.refresh), "Ask the channels about an order now",
              {200: OrderView}, (NotFound,), _ORDERS, preview=ActPreview),
        Route("POST", "/v1/orders/{order_no}/close", _KEY, optional_json_body(OrderActInput, orders.close),
              "End an order, once its channels say it is unpaid", {200: OrderView, 202: OrderView},
              (NotFound, OrderPaid), _OPERATE, has_own_record=True, preview=ActPreview),
        Route("GET", "/v1/orders/{order_no}/timeline", _KEY, plain(orders.get_timeline), "What happened to an order",
              {200: Timeline}, (NotFound,), _READ),
        Route("GET", "/v1/orders/{order_no}/story", _KEY, plain(story.get),
              "The story of an order in sentences, and what happens next", {200: StoryView}, (NotFound,), _READ),
        Route("GET", "/v1/search", _KEY, query(SearchQuery, search.by_number), "Find an order by any number",
              {200: SearchView}, scope=_READ),
        Route("GET", "/v1/cases", _KEY, query(CasesQuery, orders.find_cases),
              "List the questions for a person", {200: CasePage}, scope=_READ),
        Route("GET", "/v1/callbacks", _KEY, query(CallbacksQuery, received.find_callbacks),
              "List callbacks that came, newest first", {200: CallbackPage}, scope=_READ),
        Route("GET", "/v1/callbacks/{callback_id}", _KEY, plain(received.get_callback), "Get a callback that came",
              {200: CallbackView}, (NotFound,), _READ),
        Route("GET", "/v1/callbacks/{callback_id}/explanation", _KEY, plain(received.explain_callback),
              "What a callback proves, check by check", {200: ExplanationView}, (NotFound,), _OPERATE,
              act=ActName.CALLBACK_EXPLAIN),
        Route("POST", "/v1/callbacks/{callback_id}/raw", _KEY, json_body(RawInput, received.read_raw_body),
              "Read the bytes of a callback, for a reason", {200: RawView}, (NotFound,), _OPERATE,
              has_own_record=True),
        Route("GET", "/v1/overview", _KEY, query(OverviewQuery, overview.show),
              "Figures of a span of time, and what is open now", {200: Overview}, scope=Scope.METRICS),
        Route("GET", "/v1/alerts", _KEY, query(AlertsQuery, alerts.find_alerts),
              "List what a person must hear of, newest first", {200: AlertPage}, scope=_READ),
        Route("POST", "/v1/alerts/test", _KEY, plain(alerts.test), "Send a test to ALERT_URL", {202: AlertTest},
              (InvalidRequest,), _OPERATE, has_own_record=True),

        # -- days, disputes and cases, for operators' programs
        Route("GET", "/v1/days", _KEY, query(DaysQuery, days.find_days), "List days of accounts, newest first",
              {200: DayPage}, scope=_READ),
        Route("GET", "/v1/days/{account}/{day}", _KEY, plain(days.get_day), "Get one day as it is now",
              {200: DayView}, (NotFound, UnknownAccount), _READ),
        Route("POST", "/v1/days/{account}/{day}/sign-off", _KEY, json_body(SignOffInput, days.sign_off),
              "Sign a day off", {200: SignedOff}, (NotFound, UnknownAccount, NotPossible, PreviewOutdated), _OPERATE,
              has_own_record=True),
        Route("POST", "/v1/statements", _KEY, json_body(StatementInput, statements.read),
              "Have the statement of a day read", {202: StatementRequestView}, (UnknownAccount,), _OPERATE,
              has_own_record=True),
        Route("POST", "/v1/days/{account}/{day}/statement", _KEY, raw_body(FILE_BYTES_MAX, statements.upload),
              "Upload the statement of a day, whose bytes are the body, to be compared first",
              {202: StatementRequestView}, (NotFound, UnknownAccount, InvalidRequest), _OPERATE, has_own_record=True),
        Route("POST", "/v1/statements/{id}/confirm", _KEY, json_body(statements.ConfirmInput, statements.confirm),
              "Do what the preview of a statement has shown", {202: StatementRequestView}, (NotFound,), _OPERATE,
              has_own_record=True),
        Route("GET", "/v1/statements/{id}", _KEY, plain(statements.get),
              "Get how far the reading of a statement is", {200: StatementRequestView}, (NotFound,), _READ),
        Route("GET", "/v1/disputes", _KEY, query(DisputesQuery, days.find_disputes),
              "List disputes, the soonest to answer first", {200: DisputePage}, scope=_READ),
        Route("GET", "/v1/reconciliations", _KEY, query(ReconciliationsQuery, days.find_reconciliations),
              "List reconciliations, newest first", {200: ReconciliationPage}, scope=_READ),
        Route("GET", "/v1/reconciliations/{id}", _KEY, query(DifferencesQuery, days.get_reconciliation),
              "Get a reconciliation with its differences", {200: ReconciliationDetail}, (NotFound,), _READ),
        Route("GET", "/v1/cases/{id}", _KEY, plain(days.get_case), "Get a case with what to do about it",
              {200: CaseDetail}, (NotFound,), _READ),
        Route("POST", "/v1/cases/{id}/assign", _KEY, json_body(AssignInput, days.assign_case),
              "Give a case to an operator, or back", {200: CaseView}, (NotFound, NotPossible), _OPERATE,
              has_own_record=True, preview=ActPreview),

        # -- acts of operators' programs
        Route("POST", "/v1/orders/{order_no}/refunds", _KEY, json_body(money.RefundInput, money.refund),
              "Give back money of a payment, all of it or a part", {200: money.ActResult, 202: money.ActResult},
              (NotFound, *_NOT_DONE, RefundConflict), _OPERATE, has_own_record=True),
        Route("GET", "/v1/approvals", _KEY, query(money.ApprovalsQuery, money.find_approvals),
              "List refunds that wait for a second operator, newest first", {200: money.ApprovalPage}, scope=_READ),
        Route("POST", "/v1/approvals/{approval_id}/approve", _KEY, json_body(money.DecideInput, money.approve),
              "Agree, as an operator, to a refund of another one", {200: money.ActResult},
              (NotFound, *_NOT_DONE, RefundConflict), _OPERATE, has_own_record=True),
        Route("POST", "/v1/approvals/{approval_id}/decline", _KEY, json_body(money.DecideInput, money.decline),
              "Decline, as an operator, a refund of another one", {200: money.ActResult}, (NotFound, NotPossible),
              _OPERATE, has_own_record=True),
        Route("POST", "/v1/orders/{order_no}/accept", _KEY, json_body(money.ActInput, money.accept),
              "Accept money that came after the order was closed", {200: money.ActResult}, (NotFound, *_NOT_DONE),
              _OPERATE, has_own_record=True),
        Route("POST", "/v1/orders/{order_no}/attach", _KEY, json_body(money.AttachInput, money.attach),
              "Attach money of a number that nodrop does not know", {200: money.ActResult},
              (NotFound, UnknownAccount, *_NOT_DONE), _OPERATE, has_own_record=True),
        Route("POST", "/v1/lookups", _KEY, json_body(money.LookupInput, money.ask),
              "Ask a channel about a number that nodrop does not know", {200: money.LookupView},
              (UnknownAccount, NotPossible), _OPERATE, has_own_record=True),
        Route("POST", "/v1/cases/{id}/resolve", _KEY, json_body(money.AnswerInput, money.resolve),
              "Answer a case by a choice that fits it", {200: money.ActResult, 202: money.ActResult},
              (NotFound, UnknownAccount, *_NOT_DONE, RefundConflict), _OPERATE, has_own_record=True),
        Route("POST", "/v1/accounts/{account}/disable", _KEY, json_body(money.SwitchInput, money.disable),
              "Start no more payments at an account", {200: money.ActResult}, (NotFound, NotPossible),
              _OPERATE, has_own_record=True),
        Route("POST", "/v1/accounts/{account}/enable", _KEY, json_body(money.SwitchInput, money.enable),
              "Start payments at an account again", {200: money.ActResult}, (NotFound, NotPossible),
              _OPERATE, has_own_record=True),

        # -- what people did, and what ends. Looking is no act.
        Route("GET", "/v1/audit", _KEY, query(audit.AuditQuery, audit.find), "List acts of people, newest first",
              {200: audit.AuditPage}, scope=_OPERATE, has_own_record=True),
        Route("GET", "/v1/endings", _KEY, query(endings.EndingsQuery, endings.find),
              "List certificates and keys that end, and what is in rotation", {200: endings.EndingList},
              scope=_OPERATE, has_own_record=True),

        # -- notifications, for operators' programs. Looking is no act.
        Route("GET", "/v1/notifications", _KEY, query(deliveries.NotificationsQuery, deliveries.find_notifications),
              "List notifications with their attempts", {200: deliveries.NotificationPage}, scope=_OPERATE,
              has_own_record=True),
        Route("POST", "/v1/notifications/resend", _KEY, json_body(deliveries.ResendManyInput, deliveries.resend_many),
              "Send dead letters again, or all of an endpoint", {200: deliveries.ResendManyResult}, scope=_OPERATE,
              has_own_record=True),
        Route("GET", "/v1/notifications/{notification_id}", _KEY, plain(deliveries.get_notification),
              "Get a notification with every attempt", {200: deliveries.NotificationView}, (NotFound,), _OPERATE,
              has_own_record=True),
        Route("POST", "/v1/notifications/{notification_id}/resend", _KEY,
              json_body(deliveries.ResendInput, deliveries.resend), "Send a notification again",
              {200: deliveries.ResendResult}, (NotFound, NotPossible, PreviewOutdated), _OPERATE, has_own_record=True),
        Route("GET", "/v1/endpoints", _KEY, plain(deliveries.find_endpoints),
              "List endpoints that are paused or have something undelivered", {200: deliveries.EndpointList},
              scope=_OPERATE, has_own_record=True),
        Route("POST", "/v1/endpoints/pause", _KEY, json_body(deliveries.EndpointInput, deliveries.pause),
              "Send nothing to an endpoint", {200: deliveries.EndpointResult}, (NotPossible,), _OPERATE,
              has_own_record=True),
        Route("POST", "/v1/endpoints/resume", _KEY, json_body(deliveries.EndpointInput, deliveries.resume),
              "Send to a paused endpoint again", {200: deliveries.EndpointResult}, (NotPossible,), _OPERATE,
              has_own_record=True),

        # -- channels
        Route("POST", "/callbacks/{account}", _SIGNED, raw_body(callback_body_bytes_max, callbacks.receive),
              "A channel's callback, raw or forwarded raw", {200: Media("*/*")},
              (CallbackForged, CallbackStale)),

        # -- buyers
        Route("GET", "/o/sw.js", _ANYONE, plain(pages.serve_worker), "The pages' service worker",
              {200: Media("text/javascript")}),
        Route("GET", "/o/shell", _ANYONE, plain(pages.show_shell), "The page of no order, for browsers offline",
              {200: _PAGE}),
        Route("GET", "/o/static/{name}", _ANYONE, plain(pages.serve_asset), "The pages' files",
              {200: Media("*/*")}, (NotFound,)),
        Route("GET", "/o/{token}", _TOKEN, plain(pages.show), "An order's page",
              {200: _PAGE, 404: _PAGE, 429: _PAGE, 503: _PAGE}),
        Route("GET", "/o/{token}/return", _TOKEN, plain(pages.come_from_channel),
              "Where channels send buyers back to", {303: _SEE_OTHER, 404: _PAGE}),
        Route("GET", "/o/{token}/status", _TOKEN, plain(pages.show_status), "An order's public state",
              {200: PageStatus}, (NotFound, TooManyRequests), is_shared=True),
        Route("GET", "/o/{token}/events", _TOKEN, plain(pages.stream), "An order's public states as they come",
              {200: _EVENTS}, (NotFound, TooManyRequests), is_shared=True),
        Route("POST", "/o/{token}/refresh", _TOKEN, raw_body(FORM_BODY_BYTES_MAX, pages.refresh),
              "Ask the channel now, for a buyer", {200: PageStatus, 303: _SEE_OTHER}, (NotFound, TooManyRequests),
              is_shared=True),
        Route("POST", "/o/{token}/pay", _TOKEN, raw_body(FORM_BODY_BYTES_MAX, pages.pay),
              "Start or renew a payment, for a buyer", {303: _SEE_OTHER, 404: _PAGE}),

        # -- shops' pages
        Route("GET", "/sdk/", _ANYONE, plain(sdk.show_sdk), "How to embed an order's state", {200: _PAGE}),
        Route("GET", "/sdk/{version}/{name}", _ANYONE, plain(sdk.serve_file), "The module for shops' pages",
              {200: Media("*/*")}, (NotFound,)),

        # -- operators
        Route("GET", "/healthz", _ANYONE, plain(ops.healthz), "Is the process alive",
              {200: ops.Health}, is_exempt=True),
        Route("GET", "/readyz", _ANYONE, plain(ops.readyz), "May it have traffic",
              {200: ops.Readiness, 503: ops.Readiness}, is_exempt=True),
        Route("GET", "/metrics", _KEY, plain(ops.expose_metrics), "What it counts, for Prometheus",
              {200: _TEXT}, scope=Scope.METRICS, is_exempt=True),
        Route("GET", "/", _ANYONE, plain(reference.show_front), "What this is", {200: _PAGE}),
        Route("GET", "/docs", _ANYONE, plain(reference.show_reference), "This description, to read", {200: _PAGE}),
        Route("GET", "/openapi.json", _ANYONE, plain(ops.describe_api), "This description", {200: Media(JSON)}),
        Route("GET", "/problems/{slug}", _ANYONE, plain(problems.show_problem), "What a type of problem means",
              {200: _PAGE}, (NotFound,)),
        Route("GET", "/problems", _ANYONE, plain(problems.show_problems), "Every type of problem", {200: _PAGE}),
    )
    # fmt: on
