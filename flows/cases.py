"""Work on cases: who has one, and its plain resolution. Two operators at once: the second one learns who was faster."""

from __future__ import annotations

import structlog

from core.acts import Line, Preview
from core.errors import InvalidRequest, NotFound, NotPossible
from core.sentences import Sentence
from storage.postgres.cases import CaseRow, assign_case, find_case, resolve_case
from storage.postgres.database import Database

RESOLUTION_CHARACTERS_MAX = 500
ASSIGNEE_CHARACTERS_MAX = 80

log = structlog.get_logger()


async def get_case(db: Database, case_id: int) -> CaseRow:
    """One case, open or resolved.

    Raises:
        NotFound: there is none.
    """
    case = await find_case(db, case_id)
    if case is None:
        raise NotFound(Sentence("there is no case {id}", id=str(case_id)))
    return case


async def preview_assignment(db: Database, case_id: int, assignee: str | None) -> Preview:
    """Effects of giving the case to an operator, or back to nobody. Raises NotFound."""
    case = await get_case(db, case_id)
    if case.resolved_at is not None:
        return Preview(lines=(), refusal=too_late(case).line)
    line = Line("case.gives_back", {"id": case_id})
    if assignee is not None:
        line = Line("case.assigns", {"id": case_id, "assignee": assignee})
    is_taken = case.assignee not in (None, assignee)
    return Preview(
        lines=(line,), warnings=(Line("case.takes_from", {"assignee": case.assignee or ""}),) if is_taken else ()
    )


async def assign(db: Database, case_id: int, assignee: str | None, *, version: int) -> CaseRow:
    """Give an open case to an operator, or back to nobody, as it was seen at this version.

    Raises:
        InvalidRequest: the name is empty or too long.
        NotFound: there is no such case.
        NotPossible: it is resolved, or somebody else has changed it since; the message says who has it.
    """
    if assignee is not None:
        assignee = assignee.strip()
        if not 0 < len(assignee) <= ASSIGNEE_CHARACTERS_MAX or not assignee.isprintable():
            raise InvalidRequest(Sentence("assignee: a name of 1 to {max} characters", max=ASSIGNEE_CHARACTERS_MAX))
    assigned = await assign_case(db, case_id, assignee, version=version)
    if assigned is None:
        raise too_late(await get_case(db, case_id))
    log.info("case_assigned", case_id=case_id)
    return assigned


async def resolve(db: Database, case_id: int, *, resolution: str, by: str, version: int | None = None) -> CaseRow:
    """Write down the answer to a case. This changes no order and moves no money. `version` None: whatever it is.

    Raises:
        InvalidRequest: the resolution is empty or too long.
        NotFound, NotPossible: as `assign`.
    """
    resolution = resolution.strip()
    if not 0 < len(resolution) <= RESOLUTION_CHARACTERS_MAX:
        fault = Sentence("resolution: 1 to {max} characters that say what was done", max=RESOLUTION_CHARACTERS_MAX)
        raise InvalidRequest(fault)
    if not await resolve_case(db, case_id, resolution=resolution, by=by, version=version):
        raise too_late(await get_case(db, case_id))
    log.info("case_resolved", case_id=case_id, by=by)
    return await get_case(db, case_id)


def too_late(case: CaseRow) -> NotPossible:
    """The reason why an act on the case came too late: who has resolved it, or has it now."""
    if case.resolved_at is not None:
        return NotPossible(Line("case.resolved_by", {"id": case.id, "by": case.by or "?"}))
    if case.assignee is not None:
        return NotPossible(Line("case.assigned_to", {"id": case.id, "assignee": case.assignee}))
    return NotPossible(Line("case.given_back", {"id": case.id}))
