"""The console's benchmark opens every page that there is."""

from datetime import date

import pytest

from api.console.routes import ROWS
from bench.buyer import Unexpected
from bench.console_pages import Places, pages_of

NAMES = (
    *("orders", "refund", "approvals", "cases", "notifications", "callbacks", "days", "{account}", "reconciliation"),
    *("accounts", "operators", "static"),
)
VALUES = {name: [f"{name.strip('{}')} 1", "2"] for name in NAMES}
PLACES = Places("o", "p", "d", "c", "k", "a", date(2026, 11, 1))


def test_every_page_of_the_table_has_addresses_whose_parameters_go_together() -> None:
    pages = pages_of(ROWS, VALUES, PLACES)
    assert {row.route.pattern for row in ROWS if row.route.method == "GET"} <= pages.keys()
    refund = pages["/ops/orders/{order_no}/refund/{number}"]
    first = "/ops/orders/orders%201/refund/refund%201"
    assert [refund(turn) for turn in range(3)] == [first, "/ops/orders/2/refund/2", first]
    assert pages["/ops/days/{account}/{day}"](0) == "/ops/days/days%201/account%201"


def test_a_new_parameter_without_values_is_called_out() -> None:
    with pytest.raises(Unexpected, match=r"/ops/cases/\{id\}.*no value of id"):
        pages_of(ROWS, VALUES | {"cases": []}, PLACES)
