"""Compression of what is public and the same for every reader, once, at start.

Nothing else is compressed: the length of a page or an answer that has a token beside somebody else's text would tell
the token (BREACH), and the end of a compressed event waits for the next one.
"""

from __future__ import annotations

import gzip
import re

from msgspec.structs import replace

from api.http.response import Response

SAVING_BYTES_MIN = 256
"""A file that is shorter by less goes in the same packet anyway."""

_VARY = ("vary", "accept-encoding")
_CODING = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


def packed(response: Response) -> Response:
    """The response with its body in gzip too, if that is worth it. Only for a body that is public and is kept."""
    zipped = gzip.compress(response.body, compresslevel=9, mtime=0)
    if len(response.body) - len(zipped) < SAVING_BYTES_MIN:
        return response
    return replace(response, gzipped=zipped, headers=(*response.headers, _VARY))


def form_for(accept_encoding: str, response: Response) -> Response:
    """The form of the response that its reader takes: in gzip, if there is that form and nothing is preferred to it."""
    if not response.gzipped or not _takes_gzip(accept_encoding):
        return response
    headers = (*response.headers, ("content-encoding", "gzip"))
    return replace(response, body=response.gzipped, gzipped=b"", headers=headers)


def _takes_gzip(accept_encoding: str) -> bool:
    """RFC 9110, 12.5.3. A coding that cannot be read counts for nothing, and `x-gzip` is gzip."""
    weights: dict[str, float] = {}
    for entry in accept_encoding.split(","):
        if coding := _CODING.fullmatch(entry.strip(" \t")):
            weights.setdefault(coding[1].lower().removeprefix("x-"), float(coding[2] or 1))
    weight = weights.get("gzip", weights.get("*", 0.0))
    return weight > 0 and weight >= weights.get("identity", 0.0)
