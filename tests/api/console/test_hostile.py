"""Addresses and forms that no page of ours makes: whatever is in them, it is the sender's fault."""

from itertools import product
from urllib.parse import quote

from core.operators import Role
from tests.api.console.conftest import SignedIn

TEXTS = (
    "0001-01-01",
    "9999-12-31",
    "0001-01-01T00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "9223372036854775808",
    "-1",
    "1e5",
    "NaN",
    "\u0665",
    "\u202e",
    "<script>",
    "%00",
    "'; --",
    "a" * 3000,
    "WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzIzOjU5IiwgIngiXQ",  # a cursor of the year 1, east of Greenwich
)

FIELDS = {
    "/ops/orders": ("number", "status", "account", "amount", "currency", "from", "until", "paid_from", "cursor"),
    "/ops/orders.csv": ("until", "paid_until", "from"),
    "/ops/notifications": ("endpoint", "since", "order_no", "cursor", "status"),
    "/ops/notifications/resend?what=all&endpoint=https%3A%2F%2Fm.test": ("since",),
    "/ops/callbacks": ("account", "order", "state", "since", "cursor"),
    "/ops/cases": ("reason", "cursor", "age"),
    "/ops/days": ("account", "before", "before_account"),
    "/ops/days.csv": ("account", "before"),
    "/ops/disputes": ("state", "cursor", "account"),
    "/ops/reconciliation": ("account", "before"),
    "/ops/approvals": ("state", "before"),
    "/ops/audit": ("by", "action", "subject", "from", "until", "before"),
    "/ops/audit.csv": ("until",),
    "/ops/endpoints/show": ("endpoint",),
    "/ops/lookup": ("account", "number", "order_no", "version"),
    "/ops": ("span",),
}


async def test_the_console_has_one_spelling(signed_in: SignedIn) -> None:
    """A proxy may let nobody to /ops from outside, and compare the bytes."""
    browser = await signed_in(Role.ADMIN)
    for target in ("/%6fps/orders", "/%6F%70%73", "/op%73/me"):
        assert (await browser.get(target)).status == 404
        assert (await browser.client.call("GET", target)).status == 404


async def test_a_field_of_an_address_never_ends_in_a_fault_of_ours(signed_in: SignedIn) -> None:
    browser = await signed_in(Role.ADMIN)
    for page, field, text in [(each, *one) for each in FIELDS for one in product(FIELDS[each], TEXTS)]:
        target = f"{page}{'&' if '?' in page else '?'}{field}={quote(text, safe='')}"
        response = await browser.get(target)
        assert response.status < 500, (target, response.body[-300:])
        assert b"<script>" not in response.body, target


PATHS = (
    "/ops/orders/{}",
    "/ops/orders/{}/refund/x",
    "/ops/orders/x/refund/{}",
    "/ops/days/main/{}",
    "/ops/days/{}/2026-11-01",
    "/ops/cases/{}",
    "/ops/cases/{}/resolve",
    "/ops/callbacks/{}",
    "/ops/notifications/{}",
    "/ops/reconciliation/{}",
    "/ops/approvals/{}",
    "/ops/accounts/{}",
    "/ops/operators/{}",
    "/ops/static/{}",
)


async def test_a_name_in_a_path_never_ends_in_a_fault_of_ours(signed_in: SignedIn, account: str) -> None:
    assert account == "main"
    browser = await signed_in(Role.ADMIN)
    for pattern, text in product(PATHS, (*TEXTS, "..", "../../etc/passwd", "a\nb")):
        target = pattern.format(quote(text, safe=""))
        response = await browser.get(target)
        assert response.status < 500, (target, response.body[-300:])
        assert b"<script>" not in response.body, target
