"""POST /callbacks/{account}: the channel's own bytes in, the channel's own acknowledgement out.

The body goes on exactly as it came: a signature is over raw bytes. A callback that the merchant's old system received
first may be forwarded here unchanged, with its headers. A stranger gets the same response for an account that does not
exist as for a wrong signature.
"""

from __future__ import annotations

import structlog

from api.context import Context
from api.http.request import Request
from api.http.response import Response
from core.errors import CallbackForged, UnknownAccount
from flows.callback import receive_callback

log = structlog.get_logger()


async def receive(context: Context, request: Request) -> Response:
    account = request.params["account"]
    try:
        acknowledgement = await receive_callback(context.resources, account, request.headers, request.body)
    except UnknownAccount:
        log.warning("callback_rejected", reason="UnknownAccount")  # without the name, which anybody can make up
        raise CallbackForged from None
    return Response(status=acknowledgement.status, body=acknowledgement.body, content_type=acknowledgement.content_type)
