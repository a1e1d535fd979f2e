"""The pages of the types of problems: what each means, what to do, and an example. A problem's `type` leads here."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from api.context import Context
from api.http.problems import Problem, all_kinds, title_of, type_of
from api.http.request import Request
from api.http.response import Response, html_response
from api.pages.reference import page
from core.errors import NotFound


class Advice(NamedTuple):
    """Meaning of a problem, action of its receiver, and the `detail` of the example. Empty: it has none."""

    meaning: str
    action: str
    detail: str = ""


_SAME_AGAIN = "Send the same request again after Retry-After, in seconds. Nothing happens twice."

ADVICE: Mapping[str, Advice] = MappingProxyType(
    {
        "invalid_request": Advice(
            "A field is missing, unknown or has a value that is not allowed, or the body or the query cannot be read. "
            "Nothing was changed.",
            "Correct what the detail names; the same request fails again. An amount is a whole number of the smallest "
            "unit: 8888 is 88.88 CNY, and 8888 JPY is 8888 yen.",
            "currency: ISO 4217 has no money with the code XAU",
        ),
        "unauthorized": Advice(
            "The request has no API key, or one that is unknown, revoked or expired.",
            "Send the header Authorization: Bearer KEY. `nodrop keys list` shows the keys and their ends, "
            "`nodrop keys create` makes one.",
            "send `Authorization: Bearer <API key>`",
        ),
        "forbidden": Advice(
            "The API key is valid, and its scopes do not include this operation.",
            "Use a key with the scope that the detail names.",
            "this needs a key with the scope `operate`; shop has orders, read",
        ),
        "not_found": Advice(
            "There is no such order, page or address. An address of an order page also ends some time after its order.",
            "Check the address and the order number. An order that was answered with 2xx is always found.",
            "no such order",
        ),
        "unknown_account": Advice(
            "No account that is enabled has this name.",
            "Compare `account` with what `nodrop accounts list` shows. A new account is known to all processes after "
            "some seconds.",
            "there is no account second",
        ),
        "method_not_allowed": Advice(
            "The address exists, and takes other methods.", "The header Allow lists them.", "GET, POST"
        ),
        "body_too_slow": Advice(
            "The body did not arrive in time. It was not read to its end, and nothing was changed.",
            "Send it again.",
            "the whole body is expected within 15 s",
        ),
        "order_conflict": Advice(
            "An order with this `order_no` was placed before, with other terms. It stays as it is.",
            "To repeat a request whose answer was lost, send the same terms. For another order, use another number.",
            "order 2026-1123-0001 exists with other terms: amount",
        ),
        "number_taken": Advice(
            "`watch` names a payment that another order here watches or has.",
            "Check the number: one payment belongs to one order.",
            "a payment with this channel_reference is already known at this account",
        ),
        "refund_conflict": Advice(
            "A refund of this order was requested with this `key` before, with another payment or amount. It stays as "
            "it is.",
            "To repeat a request whose answer was lost, send the same values. For another refund, use another key.",
            "key ticket-77 is of a refund with another payment or amount",
        ),
        "not_possible": Advice(
            "The request is well formed, and what it asks for cannot be done as things stand: the detail says why. "
            "Nothing was changed.",
            'Send it with `"dry_run": true` to see what would happen. A refund, for example, needs money that is '
            "there, is nodrop's own payment's and is not disputed.",
            "So much is not left: 50.00 CNY can still go back.",
        ),
        "preview_outdated": Advice(
            "The order has moved on since the version in `expected_version`. Nothing was done.",
            'Send it with `"dry_run": true` for the new preview, and decide again.',
            "The order has changed since it was looked at: look at it again, and decide again.",
        ),
        "order_paid": Advice(
            "The order is paid, so no payment is started and it is not closed.",
            "Treat the order as paid. GET /v1/orders/ORDER_NO shows by which payment.",
            "order 2026-1123-0001 is paid",
        ),
        "order_closed": Advice(
            "The order has ended unpaid, so no payment is started.",
            "Place a new order under another number.",
            "order 2026-1123-0001 has ended",
        ),
        "payment_unclear": Advice(
            "The buyer may have paid an earlier payment of this order, or may still pay it, and might pay twice. "
            "The channel has not said yet.",
            "Show the order's page, which asks the channel, or send the request again after a minute. Do not place the "
            "order anew under another number.",
            "order 2026-1123-0001 has a payment that may have been paid",
        ),
        "body_too_large": Advice(
            "The body is larger than this address takes. It was not read.",
            "Send a smaller one.",
            "at most 163840 bytes",
        ),
        "unsupported_body": Advice(
            "The body's type is not taken here, or it is compressed.",
            "Send Content-Type: application/json, and no Content-Encoding.",
            "send application/json",
        ),
        "payment_refused": Advice(
            "The channel understood the request to create the payment and said no. The order is kept, and "
            "nothing can be paid by this payment.",
            "Look up the channel's code in the detail, mend the account or the order, and start another payment.",
            "the channel refused the payment: PARAM_ERROR",
        ),
        "too_many_requests": Advice(
            "This key, page or address has asked more often than it may, or this order was refreshed just now.",
            "Send it again after Retry-After, in seconds.",
            "this order was refreshed just now",
        ),
        "callback_forged": Advice(
            "The signature of this callback does not fit the account's keys. It was not stored.",
            "If a genuine channel or your own forwarder gets this: forward body and headers unchanged, and check the "
            "account's keys with `nodrop accounts check`.",
        ),
        "callback_stale": Advice(
            "The callback is signed for a time that is too far away. It was not stored.",
            "Forward callbacks at once. If they come directly: compare the clocks, which /readyz shows.",
        ),
        "callback_rejected": Advice(
            "The callback could not be taken for one of this channel. It was not stored.",
            "Send callbacks of this account's channel only, unchanged.",
        ),
        "channel_unavailable": Advice(
            "The channel did not answer, or its answer could not be read. Whether it has done something is not known.",
            _SAME_AGAIN,
        ),
        "unavailable": Advice(
            "A store does not answer, this process has too much to do, or the request was not done in time.",
            f"{_SAME_AGAIN} For operators: /readyz tells which store it is.",
            "too many requests at once",
        ),
        "internal_error": Advice(
            "This is a fault of the service. It has been logged under the request's id, the last part of `instance`.",
            "Sending the same request again is safe. If it stays, look for the id in the logs.",
        ),
    }
)
"""By slug. A callback's problem has no detail: it would help to forge one."""


async def show_problem(context: Context, request: Request) -> Response:
    slug = request.params["slug"]
    if slug not in ADVICE:
        raise NotFound("no such type of problem")
    return html_response(_problem(slug, context.resources.settings.public_url))


async def show_problems(_context: Context, _request: Request) -> Response:
    links = "\n".join(
        f'<li><a href="/problems/{slug}"><code>{slug}</code></a> ({kind.status}): {escape(title_of(slug))}</li>'
        for slug, kind in sorted(all_kinds().items(), key=lambda each: (each[1].status, each[0]))
    )
    return html_response(
        page(
            "nodrop: problems",
            "<h1>Problems</h1>\n<p>An error is answered with <code>application/problem+json</code> (RFC 9457). Compare "
            f"the last part of its <code>type</code>.</p>\n<ul>\n{links}\n</ul>",
        )
    )


def _problem(slug: str, public_url: str) -> bytes:
    kind, advice = all_kinds()[slug], ADVICE[slug]
    example = Problem(
        type=type_of(slug, public_url),
        title=title_of(slug),
        status=kind.status,
        detail=advice.detail,
        instance="urn:nodrop:request:0f3a9c51d7e2b846",
    )
    shown = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
    return page(
        f"nodrop: {slug}",
        f"<h1><code>{slug}</code> ({kind.status})</h1>\n<p>{escape(title_of(slug))}</p>\n"
        f"<h2>What it means</h2>\n<p>{escape(advice.meaning)}</p>\n"
        f"<h2>What to do</h2>\n<p>{escape(advice.action)}</p>\n"
        f"<h2>Example</h2>\n<pre>{escape(shown)}</pre>\n"
        '<p><a href="/problems">All problems</a> · <a href="/docs">The API</a></p>',
    )
