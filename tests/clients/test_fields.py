"""The client has every field, status, parameter and problem of the service's own OpenAPI document."""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

import nodrop_client
from api import routes
from api.http import openapi, problems
from nodrop_client import calls, errors, models, notifications

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.document(routes.table(65_536), routes.PARAMETERS))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

NAMES: dict[str, type] = {
    "OrderInput": models.NewOrder,
    "PaymentInput": models.NewPayment,
    "PayerInput": models.Payer,
    "WatchInput": models.Watch,
    "OrderView": models.Order,
    "PaymentView": models.Payment,
    "CheckoutView": models.Checkout,
    "RefundView": models.Refund,
    "DisputeView": models.Dispute,
    "PaidBy": models.PaidBy,
    "OpenCase": models.OpenCase,
    "OrderPage": models.OrderPage,
    "Timeline": models.Timeline,
    "TimelineView": models.TimelineEntry,
    "CaseView": models.Case,
    "CasePage": models.CasePage,
    "Message": notifications.Notification,
    "MessageData": notifications.NotificationData,
    "PaymentPart": notifications.NotifiedPayment,
    "RefundPart": notifications.NotifiedRefund,
    "DisputePart": notifications.NotifiedDispute,
}
ENUMS: dict[str, type[StrEnum]] = {
    "OrderStatus": models.OrderStatus,
    "PublicStatus": models.PublicStatus,
    "PaymentStatus": models.PaymentStatus,
    "RefundStatus": models.RefundStatus,
    "DisputeState": models.DisputeState,
}
OPERATIONS = {
    "orders_place": calls.place,
    "orders_find_orders": calls.list_orders,
    "orders_get_order": calls.get,
    "orders_start": calls.start_payment,
    "orders_refresh": calls.refresh,
    "orders_close": calls.close,
    "orders_get_timeline": calls.timeline,
    "orders_find_cases": calls.list_cases,
}
OF_OPERATORS = {"OrderActInput", "ActPreview", "PreviewView", "LineView", "SumView"}
"""The body of a close and a refresh, with a reason or as a dry run, which operators' programs send and no shop."""
QUERIES: dict[str, type] = {"/v1/orders": models.OrdersQuery, "/v1/cases": models.CasesQuery}


def merchants_operations() -> dict[str, dict[str, Any]]:
    """The operations of a shop's backend. Those of operators are in modules of their own, and no shop calls them."""
    return {
        operation["operationId"]: operation
        for path, methods in DOCUMENT["paths"].items()
        for operation in methods.values()
        if path.startswith("/v1/") and operation["operationId"].startswith("orders_")
    }


def schemas_of_the_merchant() -> set[str]:
    """The schemas that the merchant's operations and notifications lead to."""
    left = msgspec.json.encode([list(merchants_operations().values()), DOCUMENT["webhooks"]]).decode()
    reached: set[str] = set()
    while new := set(re.findall(r"#/components/schemas/(\w+)", left)) - reached:
        reached |= new
        left = msgspec.json.encode([SCHEMAS[name] for name in new]).decode()
    return {name for name in reached if SCHEMAS[name].get("type") == "object"} - {"Problem"} - OF_OPERATORS


def kinds_of(schema: dict[str, Any]) -> set[str]:
    """The JSON types that a schema lets through, and `date-time`."""
    if "$ref" in schema:
        return kinds_of(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return {kind for one in schema["anyOf"] for kind in kinds_of(one)}
    if "enum" in schema:
        return {"string"} | ({"null"} if None in schema["enum"] else set())
    return {"date-time" if schema.get("format") == "date-time" else schema["type"]}


def kinds_of_annotation(kind: Any) -> set[str]:  # noqa: ANN401 - an annotation
    if get_origin(kind) in (Union, UnionType):
        return {name for one in get_args(kind) for name in kinds_of_annotation(one)}
    base = get_origin(kind) or kind
    if dataclasses.is_dataclass(base):
        return {"object"}
    if isinstance(base, type) and issubclass(base, StrEnum):
        return {"string"}
    names = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "boolean",
        tuple: "array",
        Sequence: "array",
        type(None): "null",
    }
    return {names.get(base) or {"datetime": "date-time"}.get(base.__name__, "object")}


def test_every_operation_of_a_merchant_has_a_call() -> None:
    assert merchants_operations().keys() == OPERATIONS.keys()


def test_every_schema_of_a_merchant_has_a_type() -> None:
    assert schemas_of_the_merchant() == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_type_has_the_fields_of_its_schema(name: str) -> None:
    properties = SCHEMAS[name]["properties"]
    hints = get_type_hints(NAMES[name])
    assert {field.name for field in dataclasses.fields(NAMES[name])} == properties.keys()
    for field, schema in properties.items():
        assert kinds_of_annotation(hints[field]) == kinds_of(schema), field


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Input")])
def test_what_is_required_there_is_required_here(name: str) -> None:
    required = {
        field.name
        for field in dataclasses.fields(NAMES[name])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert required == set(SCHEMAS[name]["required"])


@pytest.mark.parametrize("path", QUERIES)
def test_a_query_has_every_parameter(path: str) -> None:
    parameters = {one["name"] for one in DOCUMENT["paths"][path]["get"]["parameters"] if one["in"] == "query"}
    assert {field.name for field in dataclasses.fields(QUERIES[path])} == parameters


@pytest.mark.parametrize("name", ENUMS)
def test_every_status_is_known(name: str) -> None:
    assert {str(member) for member in ENUMS[name]} == set(SCHEMAS[name]["enum"])


def test_every_type_of_notification_is_known() -> None:
    assert {str(type_) for type_ in notifications.NotificationType} == DOCUMENT["webhooks"].keys()


def test_every_problem_of_a_call_has_an_error_of_its_own() -> None:
    slugs = {
        problems.kind_of_type(fault).slug
        for route in routes.table(65_536)
        if route.pattern.startswith("/v1/") and route.endpoint.operation_id.startswith("orders_")
        for fault in route.faults
    }
    assert slugs
    assert slugs | {"unauthorized", "forbidden", "invalid_request", "unavailable"} <= errors._KINDS.keys()
    assert errors._KINDS.keys() <= problems.all_kinds().keys()


@pytest.mark.parametrize("slug", errors._KINDS)
def test_an_error_is_transient_where_the_service_says_that_the_same_request_is_safe(slug: str) -> None:
    assert errors._KINDS[slug].is_transient is (problems.all_kinds()[slug].status in (429, 503))


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    one, other = (
        {
            name: [(parameter.name, parameter.kind) for parameter in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose")
        }
        for client in (nodrop_client.Client, nodrop_client.AsyncClient)
    )
    assert one == other
    assert {"place", "get", "orders", "start_payment", "refresh", "close_order", "timeline", "cases", "watch"} <= {*one}


def test_what_is_exported_is_there_and_typed() -> None:
    assert all(hasattr(nodrop_client, name) for name in nodrop_client.__all__)
    assert (Path(nodrop_client.__file__).parent / "py.typed").exists()
