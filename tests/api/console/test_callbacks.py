"""The pages about callbacks: filters, one with its explanation, and the raw body on demand."""

import re
from functools import partial
from html import unescape
from typing import Any, get_args
from uuid import uuid4

import pytest

from api.console.texts import LANGUAGES
from core.errors import CallbackForged, UnknownAccount
from core.evidence import EvidenceKind
from core.operators import Role
from core.refusals import Verdict
from flows.explanation_notes import NOTES
from runtime.resources import Resources
from storage.postgres.audit import list_acts
from storage.postgres.callback_history import CallbackState
from storage.postgres.callbacks import count_callback
from tests.api.conftest import SECRET
from tests.api.console.conftest import SignedIn
from tests.api.driver import Client
from tests.api.test_callbacks import paid_body, placed, send, signed
from tests.api.v1.test_callbacks import is_written
from tests.servers import eventually

STRANGER = "a stranger's secret, as long as it is"
XSS = '"><script>alert(1)</script>'


@pytest.fixture
async def order(client: Client, buyer: Client, account: str, resources: Resources) -> dict[str, Any]:
    """An order with a forged callback, and a genuine one after it."""
    order = await placed(client, account)
    body = paid_body(order["payments"][0])
    await send(buyer, body, signed(body, secret=STRANGER))
    await eventually(partial(is_written, resources))
    assert (await send(buyer, body, signed(body))).status == 200
    return order


async def ids(client: Client) -> list[str]:
    """The genuine one, and the forged one."""
    return [row["id"] for row in (await client.get("/v1/callbacks")).json["callbacks"]]


async def page(signed_in: SignedIn, path: str, role: Role = Role.VIEWER) -> str:
    response = await (await signed_in(role)).get(path)
    assert response.status == 200, response.body
    return response.body.decode()


async def test_the_list_has_filters_in_its_address(signed_in: SignedIn, client: Client, order: dict[str, Any]) -> None:
    genuine, forged = await ids(client)
    whole = await page(signed_in, "/ops/callbacks")
    assert whole.index(genuine) < whole.index(forged), "the newest first"
    assert "bad signature" in whole
    of_order = f"?order={order['order_no']}&state=refused"
    for query in ("?state=refused", of_order, "?account=main&state=refused&since=1h"):
        filtered = await page(signed_in, f"/ops/callbacks{query}")
        assert forged in filtered
        assert genuine not in filtered
    assert "No callback fits this." in await page(signed_in, "/ops/callbacks?account=other")


async def test_a_list_goes_on_at_its_next_page(
    signed_in: SignedIn, client: Client, order: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.console.callbacks.PAGE", 1)
    genuine, forged = await ids(client)
    first = await page(signed_in, "/ops/callbacks?since=1d")
    [address] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await page(signed_in, unescape(address))
    assert (genuine in first, forged in first) == (True, False)
    assert (genuine in second, forged in second) == (False, True)
    assert "since=1d" in address


async def test_counts_of_what_is_not_stored_are_shown(signed_in: SignedIn, resources: Resources, account: str) -> None:
    for reason in ("no_money", "other_world", "unknown", "unknown_account"):
        await count_callback(resources.db, "main", reason)
    resources.refusals.note("mian", UnknownAccount(), {}, b"", "")
    await eventually(partial(is_written, resources))
    shown = await page(signed_in, "/ops/callbacks")
    for text in ("about no money of a payment", "of no payment here, for a day", "parked, and its account", "mian"):
        assert text in shown


async def test_a_page_shows_verdict_checks_and_fields_without_what_was_signed(
    signed_in: SignedIn, client: Client, order: dict[str, Any], resources: Resources
) -> None:
    genuine, forged = await ids(client)
    shown = await page(signed_in, f"/ops/callbacks/{genuine}")
    for text in ("Its signature holds and is fresh", "HMAC-SHA256", "Paid.", "same", order["order_no"]):
        assert text in shown
    assert "CALLBACK" not in shown, "the signed string has the body in it"
    assert "Show the raw body" not in shown
    refused = await page(signed_in, f"/ops/callbacks/{forged}")
    for text in ("No key of the account has signed these bytes", "claimed, not proved", "198.51.100.0/24", "wrong"):
        assert text in refused
    assert await list_acts(resources.db, limit=10) == []


async def test_a_raw_body_is_for_operators_written_down_and_text(
    signed_in: SignedIn, client: Client, order: dict[str, Any], resources: Resources
) -> None:
    genuine, _ = await ids(client)
    path = f"/ops/callbacks/{genuine}"
    assert (await (await signed_in(Role.VIEWER)).post(f"{path}/raw")).status == 403
    operator = await signed_in(Role.OPERATOR)
    assert (await operator.post(f"{path}/raw", csrf="another")).status == 403
    assert await list_acts(resources.db, limit=10) == []
    assert "Show the raw body" in (await operator.get(path)).body.decode()
    response = await operator.post(f"{path}/raw")
    shown = unescape(response.body.decode())
    assert response.status == 200
    assert paid_body(order["payments"][0]).decode() in shown
    assert "sandbox-signature" in shown
    assert "CALLBACK\n" in shown, "the signed string, too"
    assert SECRET not in shown
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    [act] = await list_acts(resources.db, limit=10)
    assert (act.by, act.via, act.action, act.subject) == ("operator", "console", "callback.raw", genuine)


async def test_what_strangers_send_is_text_on_every_page(
    signed_in: SignedIn, client: Client, account: str, resources: Resources
) -> None:
    headers = {"sandbox-signature": XSS}
    resources.refusals.note("main", CallbackForged(XSS), headers, XSS.encode(), "203.0.113.9")
    await eventually(partial(is_written, resources))
    [callback_id] = await ids(client)
    operator = await signed_in(Role.OPERATOR)
    for response in (
        await operator.get("/ops/callbacks"),
        await operator.get(f"/ops/callbacks/{callback_id}"),
        await operator.post(f"/ops/callbacks/{callback_id}/raw"),
    ):
        assert response.status == 200
        assert b"<script>alert" not in response.body
        assert b"&lt;script&gt;alert" in response.body


async def test_what_is_not_there_is_404_and_what_is_gone_is_said(
    signed_in: SignedIn, client: Client, order: dict[str, Any], resources: Resources
) -> None:
    operator = await signed_in(Role.OPERATOR)
    for callback_id in ("7", str(uuid4())):
        assert (await operator.get(f"/ops/callbacks/{callback_id}")).status == 404
        assert (await operator.post(f"/ops/callbacks/{callback_id}/raw")).status == 404
    genuine, _ = await ids(client)
    await resources.db.execute("UPDATE callbacks SET body = '', sealed_under = NULL")
    shown = (await operator.get(f"/ops/callbacks/{genuine}")).body.decode()
    assert "It is not kept, or erased." in shown
    assert (await operator.post(f"/ops/callbacks/{genuine}/raw")).status == 404


async def test_a_wrong_filter_is_said(signed_in: SignedIn) -> None:
    viewer = await signed_in(Role.VIEWER)
    for query in ("?state=lost", "?since=2h", "?cursor=x", "?unknown=1"):
        assert (await viewer.get(f"/ops/callbacks{query}")).status == 400


async def test_every_verdict_state_kind_and_note_has_a_text_in_each_language() -> None:
    for language in LANGUAGES.values():
        keys = {f"callbacks.verdict_{verdict}" for verdict in ("genuine", "hint", "unreadable", *Verdict)}
        keys |= {f"callbacks.meaning_{verdict}" for verdict in ("genuine", "hint", "unreadable", *Verdict)}
        keys |= {f"callbacks.state_{state}" for state in CallbackState}
        keys |= {f"callbacks.kind_{kind}" for kind in get_args(EvidenceKind)}
        keys |= {f"callbacks.explained_{kind}" for kind in (*get_args(EvidenceKind), "rejected", "mismatch")}
        keys |= {f"note.{key}" for key in NOTES}
        assert keys <= language.texts.keys()


def test_the_notes_have_the_words_of_their_sentences() -> None:
    """English is the command line's; another language takes the same words."""
    for language in LANGUAGES.values():
        for key, text in NOTES.items():
            words = sorted(re.findall(r"{\w+}", text))
            assert sorted(re.findall(r"{\w+}", language.texts[f"note.{key}"])) == words
