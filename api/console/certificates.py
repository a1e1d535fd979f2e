"""Certificates and keys that end, and what is in rotation."""

from __future__ import annotations

from api.console.render import render
from api.console.visit import Visit
from api.context import Context
from api.http.response import Reply
from core.ending import Mark
from flows.ending import find_ending

KINDS = {
    Mark.ENDED: "bad",
    Mark.DAY: "bad",
    Mark.WEEK: "look",
    Mark.MONTH: "wait",
    Mark.LATER: "good",
    Mark.ROTATING: "calm",
}


async def show(context: Context, visit: Visit) -> Reply:
    return render(
        visit,
        "certificates/show.html",
        title=visit.language.texts["certificates.title"],
        endings=await find_ending(context.resources, within_days=None),
        kinds=KINDS,
    )
