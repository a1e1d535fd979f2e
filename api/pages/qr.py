"""A text as a QR code, drawn on the server: the page needs no script and no third party for it."""

from __future__ import annotations

from io import BytesIO

import segno

QUIET_ZONE = 4
"""Modules of white around the code, as ISO/IEC 18004 requires."""


def svg(text: str, label: str) -> str:
    """An inline `<svg>` of the code, black on white in every colour scheme, so that cameras read it.

    Raises:
        ValueError: the text is empty, or has more than 2,331 bytes, the most that error correction M can hold.
    """
    if not text:
        raise ValueError("an empty text has no code")
    drawn = BytesIO()
    code = segno.make_qr(text, error="m", boost_error=False)
    code.save(
        drawn,
        kind="svg",
        border=QUIET_ZONE,
        dark="#000",
        light="#fff",
        title=label,
        xmldecl=False,
        svgns=False,
        omitsize=True,
        nl=False,
        svgclass="qr",
        lineclass=None,
    )
    return drawn.getvalue().decode().replace("<svg ", '<svg role="img" ', 1)
