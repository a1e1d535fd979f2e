"""OpenAPI 3.1 from the route table and from the very types that decode the bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_args

import msgspec

from api.http.errors import BodyTooLarge, BodyTooSlow, Forbidden, Unauthorized, UnsupportedBody
from api.http.problems import PROBLEM_JSON, RETRY_AFTER_S, Problem, kind_of_type, title_of
from api.http.response import JSON
from api.http.route import Auth, Media, Route
from core.errors import InvalidRequest, NodropError, StorageError, TooManyRequests
from core.notice import Message, NotificationType

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{([a-z_]+)\}")

_TAGS = {Auth.API_KEY: "merchant", Auth.PAGE_TOKEN: "pages", Auth.SIGNATURE: "channels", Auth.ANYONE: "operations"}

_KEYS = (
    "An API key. Each operation names the scope that its key needs: `orders`, `read`, `metrics` or `operate`. "
    "A key may expire, and may have a limit of requests per minute."
)

_WEBHOOK_HEADERS = {
    "webhook-id": "The id of the message, the same in every delivery: drop what you have already.",
    "webhook-timestamp": "When this delivery was signed, in Unix seconds: refuse what is older than five minutes.",
    "webhook-signature": "One signature or several with spaces between, `v1,` and base64 each: one must fit.",
}

Object = dict[str, Any]


def document(routes: Sequence[Route[Any]], parameters: Mapping[str, str]) -> bytes:
    """The whole document, encoded. `parameters` describes those in the patterns."""
    types = [*_types_of(routes), Message]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, Object] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, parameters)
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
            "webhooks": {type_: _webhook(type_) for type_ in get_args(NotificationType)},
            "components": {
                "schemas": {name: _without_null_defaults(schema) for name, schema in components.items()},
                "securitySchemes": {"api_key": {"type": "http", "scheme": "bearer", "description": _KEYS}},
            },
        }
    )


def _webhook(type_: str) -> Object:
    """A notification, which the merchant's order service receives."""
    message = {"allOf": [_ref(Message), {"properties": {"type": {"const": type_}}}]}
    return {
        "post": {
            "operationId": f"notify_{type_.replace('.', '_')}",
            "summary": f"The notification `{type_}`, signed as Standard Webhooks has it",
            "tags": ["notifications"],
            "security": [],
            "parameters": [
                {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
                for name, text in _WEBHOOK_HEADERS.items()
            ],
            "requestBody": {"required": True, "content": {JSON: {"schema": message}}},
            "responses": {
                "2XX": {"description": "It is acknowledged, and not sent again."},
                "410": {"description": "It is a dead letter at once."},
                "default": {"description": "It is sent again after 1, 4, 9, 16 … minutes, the same id and bytes."},
            },
        }
    }


def _without_null_defaults(schema: Object) -> Object:
    """An optional field may be left out, and generators of clients take one with a default for one that is there."""
    properties = {
        name: {key: value for key, value in field.items() if key != "default" or value is not None}
        for name, field in schema.get("properties", {}).items()
    }
    return schema | ({"properties": properties} if properties else {})


def _types_of(routes: Sequence[Route[Any]]) -> list[Any]:
    types: dict[Any, None] = {Problem: None}
    for route in routes:
        types |= dict.fromkeys((route.endpoint.body, route.endpoint.query, route.preview, *route.responses.values()))
    return [type_ for type_ in types if type_ is not None and not isinstance(type_, Media)]


def _operation(route: Route[Any], parameters: Mapping[str, str]) -> Object:
    operation: Object = {
        "operationId": route.endpoint.operation_id,
        "summary": route.summary,
        "tags": [_TAGS[route.auth]],
        "security": [] if route.scope is None else [{"api_key": [route.scope]}],
        "responses": _responses(route),
    }
    if route.scope is not None:
        operation["description"] = f"Needs an API key with the scope `{route.scope}`."
    listed = [*_path_parameters(route, parameters), *_query_parameters(route)]
    if listed:
        operation["parameters"] = listed
    if route.endpoint.body is not None:
        operation["requestBody"] = {
            "required": route.endpoint.needs_body,
            "content": {JSON: {"schema": _ref(route.endpoint.body)}},
        }
    elif route.auth in (Auth.SIGNATURE, Auth.API_KEY) and route.endpoint.body_bytes_max:  # raw bytes
        operation["requestBody"] = {"required": True, "content": {"*/*": {"schema": {}}}}
    return operation


def _path_parameters(route: Route[Any], parameters: Mapping[str, str]) -> list[Object]:
    return [
        {"name": name, "in": "path", "required": True, "description": parameters[name], "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.pattern)
    ]


def _query_parameters(route: Route[Any]) -> list[Object]:
    query = route.endpoint.query
    if query is None:
        return []
    _, components = msgspec.json.schema_components([query], ref_template=_REF)
    schema = _without_null_defaults(components[query.__name__])
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
        for name, field in schema["properties"].items()
    ]


def _responses(route: Route[Any]) -> Object:
    responses: Object = {}
    for status, content in sorted(route.responses.items()):
        responses[str(status)] = _response(status, content)
        if status == HTTPStatus.OK and route.preview is not None and not isinstance(content, Media):
            one_of = [_ref(content), _ref(route.preview)]
            responses["200"] |= {"content": {JSON: {"schema": {"oneOf": one_of}}}}
    by_status: dict[int, list[str]] = {}
    for fault in _faults_of(route):
        kind = kind_of_type(fault)
        by_status.setdefault(kind.status, []).append(f"`{kind.slug}`: {title_of(kind.slug)}")
    for status, descriptions in sorted(by_status.items()):
        responses.setdefault(str(status), _problem(status, descriptions))
    responses["default"] = _problem(0, ["`internal_error`: Something went wrong on our side."])
    return responses


def _faults_of(route: Route[Any]) -> list[type[NodropError]]:
    """The faults of the handler, and those that may come up before it is called."""
    faults: dict[type[NodropError], None] = dict.fromkeys(route.faults)
    if route.auth is Auth.API_KEY:
        faults |= dict.fromkeys((Unauthorized, Forbidden, TooManyRequests))
    if route.endpoint.body or route.endpoint.query:
        faults[InvalidRequest] = None
    if route.endpoint.body_bytes_max:
        faults |= dict.fromkeys((BodyTooLarge, BodyTooSlow, UnsupportedBody))
    if route.auth is not Auth.ANYONE:
        faults[StorageError] = None
    return list(faults)


def _response(status: int, content: type[msgspec.Struct] | Media) -> Object:
    if not isinstance(content, Media):
        text = (content.__doc__ or "").strip().split("\n", 1)[0]
        return {"description": text or content.__name__, "content": {JSON: {"schema": _ref(content)}}}
    if status == HTTPStatus.SEE_OTHER:
        return {"description": "See Location.", "headers": {"Location": {"schema": {"type": "string"}}}}
    if status == HTTPStatus.NOT_MODIFIED:
        return {"description": "It is as `If-None-Match` has it.", "headers": {"ETag": {"schema": {"type": "string"}}}}
    return {"description": "As requested.", "content": {content.content_type.split(";")[0]: {"schema": {}}}}


def _problem(status: int, descriptions: list[str]) -> Object:
    problem: Object = {
        "description": " ".join(descriptions),
        "content": {PROBLEM_JSON: {"schema": _ref(Problem)}},
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        example = RETRY_AFTER_S if status == HTTPStatus.SERVICE_UNAVAILABLE else 1
        problem["headers"] = {"Retry-After": {"schema": {"type": "integer", "example": example}}}
    return problem


def _ref(type_: type) -> Object:
    return {"$ref": _REF.format(name=type_.__name__)}
