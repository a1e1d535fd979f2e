"""The pages for developers: `/` says what this is, and `/docs` shows the API, made of its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import starmap
from typing import Any

import msgspec

from api.context import Context
from api.http.request import Request
from api.http.response import Response, html_response
from api.pages import assets

TITLES = {
    "merchant": "For the merchant's backend",
    "notifications": "Notifications to the order service",
    "pages": "For buyers, by the token of an order's page",
    "channels": "For channels",
    "operations": "For operators",
}
"""Sections in their order, by tag."""

Object = dict[str, Any]


async def show_front(_context: Context, _request: Request) -> Response:
    return html_response(_FRONT)


async def show_reference(context: Context, _request: Request) -> Response:
    return context.reference


def _front() -> bytes:
    return page(
        "nodrop",
        "<h1>nodrop</h1>\n<p>This service keeps paid orders from being lost between a payment channel and a shop.</p>\n"
        "<p>If you look for your order, please use the link that the shop gave you.</p>\n"
        '<ul>\n<li><a href="/docs">The API</a></li>\n<li><a href="/openapi.json">Its OpenAPI document</a></li>\n'
        '<li><a href="/problems">Its problems</a></li>\n'
        '<li><a href="/readyz">State of this process</a></li>\n</ul>',
    )


def reference(document: bytes) -> bytes:
    """The page at `/docs`. `document` is OpenAPI 3.1."""
    described: Object = msgspec.json.decode(document)
    sections = "\n".join(_section(tag, title, described) for tag, title in TITLES.items())
    schemas = "\n".join(_schema(name, schema) for name, schema in sorted(described["components"]["schemas"].items()))
    links = "".join(f'<li><a href="#{tag}">{escape(title)}</a></li>' for tag, title in TITLES.items())
    key = described["components"]["securitySchemes"]["api_key"]["description"]
    return page(
        "nodrop: the API",
        f"<h1>The API</h1>\n<p>{escape(described['info']['description'])}</p>\n"
        f"<p>Send <code>Authorization: Bearer KEY</code>. {_text(key)}</p>\n"
        '<p>This page is made of <a href="/openapi.json">the OpenAPI document</a>. '
        'Every error is one of <a href="/problems">these problems</a>.</p>\n'
        f'<nav aria-label="Sections"><ul>{links}<li><a href="#types">Types</a></li></ul></nav>\n'
        f'{sections}\n<section id="types"><h2>Types</h2>\n{schemas}\n</section>',
    )


def page(title: str, main: str) -> bytes:
    """A page for developers. `main` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f'<link rel="icon" href="{assets.url("icon.svg")}" type="image/svg+xml">\n'
        f'<link rel="stylesheet" href="{assets.url("reference.css")}">\n</head>\n'
        f"<body>\n<main>\n{main}\n</main>\n</body>\n</html>\n"
    ).encode()


def _section(tag: str, title: str, described: Object) -> str:
    operations = "\n".join(_operation(*each) for each in _operations(described) if tag in each[2]["tags"])
    return f'<section id="{tag}"><h2>{escape(title)}</h2>\n{operations}\n</section>'


def _operations(described: Object) -> Iterator[tuple[str, str, Object]]:
    """Method, path and operation; of a webhook its method and name."""
    for paths in (described["paths"], described["webhooks"]):
        for path, methods in paths.items():
            for method, operation in methods.items():
                yield method.upper(), path, operation


def _operation(method: str, path: str, operation: Object) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    parts = [
        f'<article id="{operation["operationId"]}">',
        f"<h3><code>{method} {escape(path)}</code></h3>",
        f"<p>{_text(operation['summary'])}.</p>",
        f"<p>{_text(operation['description'])}</p>" if "description" in operation else "",
        _table("Parameters", ("Name", "In", "Type", "Meaning"), map(_parameter, operation.get("parameters", ()))),
        f"<p>Body: {', '.join(_type(content['schema']) for content in body.values())}</p>" if body else "",
        _table("Responses", ("Status", "Body", "Meaning"), starmap(_response, operation["responses"].items())),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _parameter(parameter: Object) -> tuple[str, ...]:
    name = f"<code>{escape(parameter['name'])}</code>" + ("" if parameter.get("required") else " (optional)")
    described = parameter.get("description") or _described(parameter["schema"])
    return name, parameter["in"], _type(parameter["schema"]), _text(described)


def _response(status: str, response: Object) -> tuple[str, ...]:
    types = ", ".join(_type(content["schema"]) for content in response.get("content", {}).values())
    return f"<code>{status}</code>", types, _text(response["description"])


def _schema(name: str, schema: Object) -> str:
    needed = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(field)}</code>" + ("" if field in needed else " (optional)"),
            _type(described),
            _text(_described(described)),
        )
        for field, described in schema.get("properties", {}).items()
    ]
    kind = "" if rows else f"<p>{_type(schema)}</p>\n"
    return (
        f'<article id="{escape(name)}">\n<h3>{escape(name)}</h3>\n<p>{_text(schema.get("description", ""))}</p>\n'
        f"{kind}{_table('Fields', ('Field', 'Type', 'Meaning'), rows)}\n</article>"
    )


def _table(caption: str, heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Cells are HTML already. No rows, no table."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    caption = f"<caption>{escape(caption)}</caption>"
    # It scrolls by itself on a narrow screen, so it must take the focus of a keyboard.
    table = f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>' if body else ""


def _type(schema: Object) -> str:
    """A type in a few words: `text, 1 to 127 characters`, `list of PaymentView`, `Money or null`."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[key]))
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "enum" in schema or "const" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return _words(schema)


def _words(schema: Object) -> str:
    kind = schema.get("format") or schema.get("type", "anything")
    low = schema.get("minimum", schema.get("minLength"))
    high = schema.get("maximum", schema.get("maxLength"))
    unit = " characters" if schema.get("type") == "string" else ""
    if low is None and high is None:
        return escape(str(kind))
    span = f"up to {high}" if low is None else f"from {low}" if high is None else f"{low} to {high}"
    return escape(f"{kind}, {span}{unit}")


def _described(schema: Object) -> str:
    """The description of a field, which stands at its type if it may be null."""
    texts = (each.get("description", "") for each in (schema, *schema.get("anyOf", ())))
    return next(filter(None, texts), "")


def _text(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


_FRONT = _front()
