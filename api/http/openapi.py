"""OpenAPI 3.1 from the route table and from the very types that decode the bodies, so it cannot say anything else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from api.http.errors import BodyTooLarge, BodyTooSlow, Unauthorized, UnsupportedBody
from api.http.problems import PROBLEM_JSON, RETRY_AFTER_S, Problem, kind_of, title_of
from api.http.response import JSON
from api.routes import Auth, Media, Route
from core.errors import InvalidRequest, NodropError, StorageError

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{([a-z_]+)\}")

_PARAMETERS = {
    "order_no": "The merchant's order number.",
    "account": "Our name of the channel account.",
    "token": "The order's page token, from `order_page`.",
    "name": "A file's name with the hash of its content.",
    "slug": "The last part of a problem's `type`.",
}
_TAGS = {Auth.API_KEY: "merchant", Auth.PAGE_TOKEN: "pages", Auth.SIGNATURE: "channels", Auth.NOBODY: "operations"}

Object = dict[str, Any]


def document(routes: Iterable[Route]) -> bytes:
    """The whole document, encoded."""
    routes = tuple(routes)
    types = _types_of(routes)
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, Object] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "nodrop",
                "version": "1",
                "description": "Keeps paid orders from being lost between a payment channel and a merchant.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "api_key": {"type": "http", "scheme": "bearer", "description": "An API key of the merchant's."}
                },
            },
        }
    )


def _types_of(routes: tuple[Route, ...]) -> list[Any]:
    types: dict[Any, None] = {Problem: None}
    for route in routes:
        given = [answer for answer in route.answers.values() if not isinstance(answer, Media)]
        for type_ in (route.takes, route.query, *given):
            if type_ is not None:
                types[type_] = None
    return list(types)


def _operation(route: Route) -> Object:
    operation: Object = {
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "summary": route.summary,
        "tags": [_TAGS[route.auth]],
        "security": [{"api_key": []}] if route.auth is Auth.API_KEY else [],
        "responses": _responses(route),
    }
    parameters = [*_path_parameters(route), *_query_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(route.takes)}}}
    elif route.auth is Auth.SIGNATURE:
        operation["requestBody"] = {"required": True, "content": {"*/*": {"schema": {}}}}
    return operation


def _path_parameters(route: Route) -> list[Object]:
    return [
        {"name": name, "in": "path", "required": True, "description": _PARAMETERS[name], "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.pattern)
    ]


def _query_parameters(route: Route) -> list[Object]:
    if route.query is None:
        return []
    _, components = msgspec.json.schema_components([route.query], ref_template=_REF)
    schema = components[route.query.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
        for name, field in schema["properties"].items()
    ]


def _responses(route: Route) -> Object:
    responses: Object = {}
    for status, answer in sorted(route.answers.items()):
        responses[str(status)] = _answer(status, answer)
    by_status: dict[int, list[str]] = {}
    for fault in _faults_of(route):
        kind = kind_of(fault())
        by_status.setdefault(kind.status, []).append(f"`{kind.slug}`: {title_of(kind.slug)}")
    for status, described in sorted(by_status.items()):
        responses.setdefault(str(status), _problem(status, described))
    responses["default"] = _problem(0, ["`internal_error`: Something went wrong on our side."])
    return responses


def _faults_of(route: Route) -> list[type[NodropError]]:
    """What the handler may raise, and what may be wrong before it is called."""
    faults: dict[type[NodropError], None] = dict.fromkeys(route.faults)
    if route.auth is Auth.API_KEY:
        faults[Unauthorized] = None
    if route.takes or route.query:
        faults[InvalidRequest] = None
    if route.body_bytes_max:
        faults |= dict.fromkeys((BodyTooLarge, BodyTooSlow, UnsupportedBody))
    if route.auth is not Auth.NOBODY:
        faults[StorageError] = None
    return list(faults)


def _answer(status: int, answer: type | Media) -> Object:
    if isinstance(answer, Media):
        described: Object = {"description": "See Location." if status == HTTPStatus.SEE_OTHER else "As asked for."}
        if status == HTTPStatus.SEE_OTHER:
            described["headers"] = {"Location": {"schema": {"type": "string"}}}
        if answer.content_type:
            described["content"] = {answer.content_type.split(";")[0]: {"schema": {}}}
        return described
    text = (answer.__doc__ or "").strip().split("\n", 1)[0]
    return {"description": text or answer.__name__, "content": {JSON: {"schema": _ref(answer)}}}


def _problem(status: int, described: list[str]) -> Object:
    problem: Object = {
        "description": " ".join(described),
        "content": {PROBLEM_JSON: {"schema": _ref(Problem)}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        example = RETRY_AFTER_S if status == HTTPStatus.SERVICE_UNAVAILABLE else 1
        problem["headers"] = {"Retry-After": {"schema": {"type": "integer", "example": example}}}
    return problem


def _ref(type_: type) -> Object:
    return {"$ref": _REF.format(name=type_.__name__)}
