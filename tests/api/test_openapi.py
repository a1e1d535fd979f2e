"""The document says what the table says, and the table says what the handlers take."""

import json
import re
import subprocess
import sys
from html import unescape
from typing import Any, get_args
from urllib.parse import urlsplit

import msgspec
import pytest

from api import routes
from api.context import Context
from api.http import errors as http_errors
from api.http import openapi, problems
from api.http.route import Auth, Media, Route
from api.pages import problems as pages
from core import errors
from core.notice import NotificationType
from tests.api.driver import Client
from tests.servers import ROOT

TABLE = routes.table(65_536)
WEBHOOKS = get_args(NotificationType)
DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi.document(TABLE, routes.PARAMETERS))


def operation(route: Route[Context]) -> dict[str, Any]:
    described: dict[str, Any] = DOCUMENT["paths"][route.pattern][route.method.lower()]
    return described


def test_every_route_is_there_and_nothing_else() -> None:
    listed = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert listed == {(route.method, route.pattern) for route in TABLE}


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.pattern}")
def test_an_operation_is_complete(route: Route[Context]) -> None:
    described = operation(route)
    assert described["summary"]
    assert described["security"] == ([] if route.scope is None else [{"api_key": [route.scope]}])
    assert route.scope is None or f"scope `{route.scope}`" in described["description"]
    assert {str(status) for status in route.responses} <= described["responses"].keys()
    in_path = {given["name"] for given in described.get("parameters", ()) if given["in"] == "path"}
    assert in_path == set(re.findall(r"\{(\w+)\}", route.pattern))
    for response in described["responses"].values():
        assert response["description"]
    for fault in route.faults:
        problem = described["responses"][str(problems.kind_of_type(fault).status)]
        assert "application/problem+json" in problem["content"] or route.responses, fault
    takes_bytes = route.auth in (Auth.SIGNATURE, Auth.API_KEY) and route.endpoint.body_bytes_max > 0
    assert ("requestBody" in described) is (route.endpoint.body is not None or takes_bytes)


def test_operation_ids_are_unique() -> None:
    ids = [operation(route)["operationId"] for route in TABLE]
    assert len(set(ids)) == len(ids)


def test_operation_ids_are_the_ones_that_clients_were_generated_from() -> None:
    ids = {operation(route)["operationId"] for route in TABLE}
    assert {"orders_place", "callbacks_receive", "pages_show", "pages_come_from_channel", "ops_readyz"} <= ids


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    references = set(re.findall(r'"\$ref":"([^"]+)"', msgspec.json.encode(DOCUMENT).decode()))
    assert references
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


def test_the_schema_of_an_order_has_the_very_constraints_that_decoding_has() -> None:
    order = DOCUMENT["components"]["schemas"]["OrderInput"]
    assert order["additionalProperties"] is False
    assert set(order["required"]) == {"order_no", "amount", "currency", "subject"}
    assert (order["properties"]["amount"]["minimum"], order["properties"]["subject"]["maxLength"]) == (1, 127)


def test_an_optional_field_may_be_left_out_and_has_no_null_for_a_default() -> None:
    """Generators take a field with a default for one that is always there."""
    assert '"default":null' not in msgspec.json.encode(DOCUMENT).decode()
    order = DOCUMENT["components"]["schemas"]["OrderInput"]["properties"]
    assert {"type": "null"} in order["notify_url"]["anyOf"]
    assert order["method"]["default"] == ""


def test_every_time_is_a_date_time() -> None:
    texts = msgspec.json.encode(DOCUMENT["components"]["schemas"]).decode()
    times = re.findall(r'"(?:\w+_(?:at|until|after|before)|respond_by)":(\{.*?\}(?:,\{"type":"null"\}\]\})?)', texts)
    assert len(times) > 20
    assert [time for time in times if "date-time" not in time] == []


def test_every_notification_is_a_webhook() -> None:
    assert DOCUMENT["webhooks"].keys() == set(get_args(NotificationType))
    schemas = DOCUMENT["components"]["schemas"]
    assert {"id", "type", "created_at", "data"} == set(schemas["Message"]["required"])
    for type_, webhook in DOCUMENT["webhooks"].items():
        content = webhook["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert content["allOf"][1] == {"properties": {"type": {"const": type_}}}


def test_patterns_are_ones_that_javascript_reads_too() -> None:
    for pattern in re.findall(r'"pattern":("(?:[^"\\]|\\.)*")', msgspec.json.encode(DOCUMENT).decode()):
        text = msgspec.json.decode(pattern, type=str)
        assert text.startswith("^")
        assert text.endswith("$")
        assert r"\A" not in text
        assert r"\Z" not in text


def test_only_media_and_types_are_answers() -> None:
    for route in TABLE:
        for response in route.responses.values():
            assert isinstance(response, Media) or issubclass(response, msgspec.Struct)


async def test_it_is_served(client: Client) -> None:
    assert (await client.get("/openapi.json")).json == DOCUMENT


async def test_the_reference_shows_every_operation_type_and_notification(client: Client) -> None:
    response = await client.get("/docs")
    page = unescape(response.body.decode())
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    for route in TABLE:
        assert f"{route.method} {route.pattern}</code>" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert DOCUMENT["components"]["schemas"].keys() | {f"notify_{name.replace('.', '_')}" for name in WEBHOOKS} <= {
        *ids
    }
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(ids)
    assert "<script" not in page


async def test_the_front_page_says_what_this_is(client: Client) -> None:
    page = (await client.get("/")).body.decode()
    assert "keeps paid orders from being lost" in page
    for link in re.findall(r'href="([^"#]+)"', page):
        assert (await client.get(link)).status == 200


# -- problems ----------------------------------------------------------------------------------------------------------


def callers_faults() -> list[type[errors.CallerError]]:
    return errors.CallerError.__subclasses__()


def test_the_faults_of_http_are_among_them() -> None:
    assert {http_errors.Unauthorized, http_errors.BodyTooLarge, errors.NotFound} <= set(callers_faults())


@pytest.mark.parametrize("error", callers_faults(), ids=lambda error: error.__name__)
def test_the_title_of_a_fault_is_a_sentence(error: type[errors.CallerError]) -> None:
    assert error.title.endswith(".")


@pytest.mark.servers
def test_titles_do_not_need_docstrings() -> None:
    """`python -OO` drops them."""
    program = (
        "import json\n"
        "from api.http import problems\n"
        "assert problems.__doc__ is None\n"
        "print(json.dumps({slug: problems.title_of(slug) for slug in problems.all_kinds()}))\n"
    )
    ended = subprocess.run([sys.executable, "-OO", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == {slug: problems.title_of(slug) for slug in problems.all_kinds()}


@pytest.mark.parametrize("error", callers_faults(), ids=lambda error: error.__name__)
def test_every_fault_of_a_caller_has_a_row_of_its_own(error: type[errors.CallerError]) -> None:
    assert error in problems.KINDS
    assert 400 <= problems.KINDS[error].status < 500


def test_slugs_name_one_fault_each() -> None:
    slugs = [kind.slug for kind in problems.KINDS.values()]
    assert len(set(slugs)) == len(slugs)


def test_every_type_of_problem_has_advice() -> None:
    assert pages.ADVICE.keys() == problems.all_kinds().keys()
    for advice in pages.ADVICE.values():
        assert advice.meaning.endswith(".")
        assert advice.action.endswith(".")


async def test_every_type_of_problem_leads_to_a_page(client: Client) -> None:
    for slug, kind in problems.all_kinds().items():
        address = problems.type_of(slug, client.app.context.resources.settings.public_url)
        response = await client.get(urlsplit(address).path)
        assert response.status == 200
        page = unescape(response.body.decode())
        for text in (str(kind.status), problems.title_of(slug), pages.ADVICE[slug].meaning, pages.ADVICE[slug].action):
            assert text in page
        example = msgspec.json.decode(page.partition("<pre>")[2].partition("</pre>")[0], type=problems.Problem)
        assert (example.type, example.status) == (address, kind.status)


async def test_an_unknown_type_of_problem_has_no_page(client: Client) -> None:
    assert (await client.get("/problems/nothing")).status == 404


async def test_all_types_of_problems_are_listed(client: Client) -> None:
    page = (await client.get("/problems")).body.decode()
    assert set(re.findall(r'href="/problems/([a-z_]+)"', page)) == problems.all_kinds().keys()


async def test_the_type_of_a_problem_is_an_absolute_address(client: Client) -> None:
    response = await client.get("/nowhere")
    assert response.json["type"] == f"{client.app.context.resources.settings.public_url}/problems/not_found"
    found = await client.get(urlsplit(response.json["type"]).path)
    assert found.status == 200


@pytest.mark.parametrize("public_url", ["https://pay.example.com", "https://pay.example.com/"])
def test_the_type_does_not_depend_on_a_slash_behind_the_public_url(public_url: str) -> None:
    assert problems.type_of("not_found", public_url) == "https://pay.example.com/problems/not_found"


def test_what_is_no_fault_of_ours_to_name_is_500_without_details() -> None:
    response = problems.Problems("https://pay.example.com").response(ZeroDivisionError("secret-canary"), "0123")
    assert response.status == 500
    assert b"canary" not in response.body
    assert msgspec.json.decode(response.body)["instance"] == "urn:nodrop:request:0123"


def test_what_storage_says_stays_here() -> None:
    response = problems.Problems("https://pay.example.com").response(
        errors.DatabaseUnavailable("Postgres at 10.1.2.3:5432: canary"), "0123"
    )
    assert response.status == 503
    assert dict(response.headers)["retry-after"] == "15"
    assert b"canary" not in response.body
