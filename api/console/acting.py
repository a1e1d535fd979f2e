"""Pages of an act in parts: what it would do with its form, and the page once more when that has changed."""

from __future__ import annotations

from collections.abc import Mapping

from api.console.render import render
from api.console.visit import Visit, path_of
from api.http.response import Reply
from core.acts import Preview
from core.errors import NotPossible, PreviewOutdated

ORDER = "/ops/orders/{order_no}"
CONFLICT = 409
DANGERS = frozenset({"close", "disable"})
"""Acts that take something away from buyers."""


def confirm(visit: Visit, act: str, preview: Preview, *, status: int = 200, has_moved: bool = False) -> Reply:
    """The page of an act: what it would do, and its form."""
    return render(
        visit,
        "money/confirm.html",
        status=status,
        title=visit.language.texts[f"money.{act}"],
        button=visit.language.texts[f"money.{act}_now"],
        preview=preview,
        is_danger=act in DANGERS,
        has_moved=has_moved,
        fields=fields_of(preview),
    )


def refused_page(visit: Visit, act: str, refused: NotPossible | PreviewOutdated) -> Reply:
    """The page once more, with what has changed: nothing was done."""
    return confirm(visit, act, shown(refused), status=CONFLICT, has_moved=isinstance(refused, PreviewOutdated))


def shown(refused: NotPossible | PreviewOutdated) -> Preview:
    return refused.preview if isinstance(refused, PreviewOutdated) else Preview(lines=(), refusal=refused.line)


def fields_of(preview: Preview) -> Mapping[str, str]:
    return {} if preview.version is None else {"version": str(preview.version)}


def back_of_act(visit: Visit) -> str:
    """The page of what the act is about."""
    if "order_no" in visit.params:
        return path_of(ORDER, order_no=visit.params["order_no"])
    return path_of("/ops/accounts/{name}", name=visit.params["name"])
