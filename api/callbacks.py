"""POST /callbacks/{account}: the channel's own bytes in, the channel's own acknowledgement out.

The body goes on exactly as it came: a signature is over raw bytes. A callback that the merchant's old system received
first may be forwarded here unchanged, with its headers.
"""

from __future__ import annotations

from api.context import Context
from api.http.request import Request
from api.http.response import Response
from core.errors import UnknownAccount
from core.order import ACCOUNT_NAME
from flows.callback import receive_callback


async def receive(context: Context, request: Request) -> Response:
    account = request.params["account"]
    if ACCOUNT_NAME.fullmatch(account) is None:
        raise UnknownAccount
    acknowledgement = await receive_callback(context.resources, account, request.headers, request.body)
    return Response(status=acknowledgement.status, body=acknowledgement.body, content_type=acknowledgement.content_type)
