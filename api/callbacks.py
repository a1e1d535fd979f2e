"""POST /callbacks/{account}: the channel's own bytes in, the channel's own acknowledgement out.

The body goes on exactly as it came: a signature is over raw bytes. A callback that the merchant's old system received
first may be forwarded here unchanged, with its headers. A stranger gets the same response for an account that does not
exist as for a wrong signature. What is refused is noted for people, without waiting for it.
"""

from __future__ import annotations

import structlog

from api.context import Context
from api.http.request import Request
from api.http.response import Response
from channels.adapters import CALLBACK_HEADERS
from core.errors import CallbackForged, CallbackRejected, ChannelUnavailable, NodropError, UnknownAccount
from core.rollups import Tally
from flows.callback import receive_callback

log = structlog.get_logger()


async def receive(context: Context, request: Request) -> Response:
    account = request.params["account"]
    try:
        acknowledgement = await receive_callback(context.resources, account, request.headers, request.body)
    except UnknownAccount as error:
        log.warning("callback_rejected", reason="UnknownAccount")  # without the name, which anybody can make up
        _note(context, request, error)
        raise CallbackForged from None
    except (CallbackRejected, ChannelUnavailable) as error:
        _note(context, request, error)
        context.resources.tallies[Tally("account", account, "callbacks_refused")] += 1
        raise
    return Response(status=acknowledgement.status, body=acknowledgement.body, content_type=acknowledgement.content_type)


def _note(context: Context, request: Request, error: NodropError) -> None:
    headers = {name: request.headers[name] for name in CALLBACK_HEADERS if name in request.headers}
    context.resources.refusals.note(request.params["account"], error, headers, request.body, request.address)
