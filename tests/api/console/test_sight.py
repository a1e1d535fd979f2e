"""Texts that may name a payer, planted wherever one can stand: each is nowhere on a viewer's pages and files, and on an
operator's, so that the planting is known to work.
"""

import re
from datetime import UTC, date, datetime
from html import unescape
from itertools import count

import msgspec
import pytest

from api.console.routes import ROWS
from core.deliveries import Attempt
from core.operators import Role
from runtime.resources import Resources
from tests.api.conftest import terms
from tests.api.console.conftest import ConsoleClient, SignedIn
from tests.api.driver import Client

DAY = date(2026, 3, 1)
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIGURES = {"CNY": {"gross": 0}}
ENDPOINT = "https://shop.example/hook"


class Planted:
    """The planted texts, by where they stand, and the parameters of the addresses that show them."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}
        self.params: dict[str, str] = {"day": DAY.isoformat(), "account": "main", "name": "main", "choice": "other"}
        self._numbers = count(1)

    def mail(self, where: str) -> str:
        """A sentence with an address that is planted there alone."""
        self.marks[where] = f"payer{next(self._numbers):03}@mail.example"
        return f"wrote {self.marks[where]}, twice"

    def secret(self, where: str) -> str:
        self.marks[where] = f"SECRET{next(self._numbers):03}X"
        return self.marks[where]


@pytest.fixture
async def planted(client: Client, resources: Resources, account: str) -> Planted:
    """An order with everything that may be about one, each text marked."""
    plant, db = Planted(), resources.db
    placed = (await client.post("/v1/orders", terms(account=account))).json
    order_no, number = placed["order_no"], placed["payments"][0]["out_trade_no"]
    token = placed["order_page"].rpartition("/")[2]
    plant.marks["page link"] = token
    plant.params |= {"order_no": order_no, "number": number}
    url = f"{ENDPOINT}?token={plant.secret('query of notify_url')}"
    await db.execute(
        "UPDATE orders SET version = version + 1, subject = $2, notify_url = $3, return_url = $4,"
        " metadata = $5::text::jsonb WHERE order_no = $1",
        *(order_no, plant.mail("subject"), url, f"https://shop.example/?r={plant.secret('return_url')}"),
        msgspec.json.encode({"buyer": plant.secret("metadata")}).decode(),
    )
    await db.execute(
        "UPDATE payments SET status = 'paid', paid_at = now(), channel_transaction_id = 't-1' WHERE order_no = $1",
        order_no,
    )
    await db.execute(
        "UPDATE order_events SET note = $2, evidence = jsonb_build_object('kind', 'paid', 'says', $3::text)"
        " WHERE order_no = $1",
        *(order_no, plant.mail("note of an event"), plant.mail("evidence of an event")),
    )
    await db.execute(
        "INSERT INTO observations (order_no, kind, by, channel_account, out_trade_no, note)"
        " VALUES ($1, 'unclear_seen', 'query', 'main', $2, $3)",
        *(order_no, number, plant.mail("note of an observation")),
    )
    for resolved in (False, True):
        state = "resolved" if resolved else "open"
        case_id = await db.fetchval(
            "INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, resolved_at, resolution, by)"
            " VALUES ($1, 'main', $2, 'paid_late', $3, CASE WHEN $5 THEN now() END, $4, CASE WHEN $5 THEN 'kim' END)"
            " RETURNING id",
            *(order_no, number, plant.mail(f"detail of a case, {state}")),
            *(plant.mail("resolution of a case") if resolved else None, resolved),
        )
        plant.params["id" if not resolved else "resolved"] = str(case_id)
    attempt = Attempt(no=1, at=AT, latency_ms=12, status="500", answer=plant.secret("answer of an endpoint"))
    await db.execute(
        "INSERT INTO notifications (id, order_no, version, type, url, body, last_status, attempts)"
        " VALUES ('msg_x', $1, 99, 'order.paid', $2, $3, '500', $4::text::jsonb)",
        *(order_no, url, msgspec.json.encode({"metadata": plant.secret("text of a notification")})),
        msgspec.json.encode([attempt]).decode(),
    )
    plant.params["notification_id"] = "msg_x"
    await db.execute(
        "INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, reason, outcome,"
        " opened_at, changed_at, respond_by)"
        " VALUES ('main', $2, 'd-1', $1, 'claim', 'open', $3, $4, now(), now(), now())",
        *(order_no, number, plant.mail("reason of a dispute"), plant.mail("outcome of a dispute")),
    )
    await db.execute(
        "INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,"
        " requested_at, last_error) VALUES ('r-x', 'main', $2, $1, 1, 'CNY', 'late', 'requested', now(), $3)",
        *(order_no, number, plant.mail("error of a refund")),
    )
    plant.params["approval_id"] = str(
        await db.fetchval(
            "INSERT INTO refund_approvals (order_no, channel_account, out_trade_no, amount, currency, request_key,"
            " reason, requested_by, expires_at)"
            " VALUES ($1, 'main', $2, 1, 'CNY', 'k', $3, 'kim', now() + interval '1 h') RETURNING id",
            *(order_no, number, plant.mail("reason of a refund that waits")),
        )
    )
    await db.execute(
        "INSERT INTO paused_endpoints (endpoint, paused_by, reason) VALUES ($1, 'kim', $2)",
        *(ENDPOINT, plant.mail("reason of a pause")),
    )
    await _plant_day(resources, plant, order_no, number)
    await _plant_callback(resources, plant, order_no, number)
    return plant


async def _plant_day(resources: Resources, plant: Planted, order_no: str, number: str) -> None:
    db = resources.db
    run = await db.fetchval(
        "INSERT INTO reconciliations (channel_account, day, dry_run, status, finished_at, counts)"
        " VALUES ('main', $1, false, 'finished', now(), '{\"statement_amount\": 1, \"rows\": 1}') RETURNING id",
        DAY,
    )
    plant.params["run"] = str(run)
    await db.execute(
        "INSERT INTO reconciliation_differences (reconciliation_id, row_no, kind, order_no, out_trade_no,"
        " channel_transaction_id, detail) VALUES ($1, 1, 'amount', $2, $3, 't-1', $4)",
        *(run, order_no, number, plant.mail("detail of a difference")),
    )
    await db.execute("INSERT INTO closings (channel_account, day, money) VALUES ('main', $1, '{}')", DAY)
    await db.execute(
        "INSERT INTO sign_offs (channel_account, day, by, note, figures)"
        " VALUES ('main', $1, 'kim', $2, $3::text::jsonb)",
        *(DAY, plant.mail("note of a sign-off"), msgspec.json.encode(FIGURES).decode()),
    )
    await db.execute(
        "INSERT INTO statement_requests (channel_account, day, dry_run, requested_by, reason, status, error, ended_at)"
        " VALUES ('main', $1, true, 'kim', $2, 'failed', $3, now())",
        *(DAY, plant.mail("reason of a request"), plant.mail("error of a request")),
    )


async def _plant_callback(resources: Resources, plant: Planted, order_no: str, number: str) -> None:
    plant.params["callback_id"] = str(
        await resources.db.fetchval(
            "INSERT INTO refused_callbacks (channel_account, body_hash, headers, body_bytes, verdict, detail, order_no,"
            " out_trade_no, network)"
            " VALUES ('main', decode(repeat('00', 32), 'hex'), '{}', 2, 'forged', $3, $1, $2, '') RETURNING id",
            *(order_no, number, plant.mail("detail of a refused callback")),
        )
    )


def addresses(plant: Planted) -> list[str]:
    """Every page and file of the table, and those that show more with a choice in the address."""
    patterns = [row.route.pattern for row in ROWS if row.route.method == "GET"]
    values = plant.params
    found = [
        pattern.format(**values | ({"id": values["run"]} if "reconciliation" in pattern else {}))
        for pattern in patterns
    ]
    further = (
        f"/ops/cases/{values['resolved']}",
        f"/ops/cases/{values['id']}/answer?choice=other",
        f"/ops/endpoints/show?endpoint={ENDPOINT}",
        "/ops/approvals?state=all",
        f"/ops/orders?number={values['number']}",
        "/ops/notifications?status=dead",
    )
    return [address for address in (*found, *further) if not address.startswith(("/ops/static/", "/ops/signin"))]


async def seen(browser: ConsoleClient, plant: Planted) -> dict[str, list[str]]:
    """Addresses by what stands on them."""
    found: dict[str, list[str]] = {}
    for address in addresses(plant):
        response = await browser.get(address)
        assert response.status < 500, (address, response.body.decode()[-300:])
        text = unescape(response.body.decode() + repr(response.headers))
        for where, mark in plant.marks.items():
            if mark in text:
                found.setdefault(where, []).append(address)
    return found


async def test_a_viewer_sees_no_payer_no_token_and_no_answer(signed_in: SignedIn, planted: Planted) -> None:
    assert await seen(await signed_in(Role.VIEWER), planted) == {}


HIDDEN = {"return_url"}
"""Shown to nobody."""


async def test_an_operator_sees_each_of_them_somewhere(signed_in: SignedIn, planted: Planted) -> None:
    """So the test above looks where they are."""
    assert planted.marks.keys() - (await seen(await signed_in(Role.OPERATOR), planted)).keys() == HIDDEN


async def test_a_viewer_sees_all_that_people_search_by(signed_in: SignedIn, planted: Planted) -> None:
    browser = await signed_in(Role.VIEWER)
    page = unescape((await browser.get(f"/ops/orders/{planted.params['order_no']}")).body.decode())
    assert [each for each in (planted.params["number"], "t-1", "r-x", "d-1", "msg_x") if each not in page] == []
    assert ENDPOINT + "?***" in page
    assert re.search(r"<dt><bdi>buyer</bdi></dt><dd><bdi>\*\*\*</bdi>", page)
    assert "wrote ***, twice" in page
