"""Acts over HTTP: who acts, and the row in the audit that a handler writes before it acts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.context import Context
from core.act_names import ActName
from core.acts import REASON_MAX
from storage.postgres.api_keys import acting_key, acting_operator
from storage.postgres.audit import Act, Via, write_act

Reason = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=REASON_MAX,
        description="Why; kept with the act for those who read it later. No channel sees it.",
        examples=["One cup was broken"],
    ),
]
ExpectedVersion = Annotated[
    int, Meta(ge=1, description="The order's version that you looked at: with another one nothing is done.")
]
CaseVersion = Annotated[int, Meta(ge=1, le=2**31 - 1, description="The case's version, as it was seen.")]
DryRun = Annotated[bool, Meta(description="Say what it would do, and do nothing.")]


async def record(context: Context, action: ActName, subject: str, **detail: object) -> None:
    """Write the act of the request's operator or key down before it is done. Raises DatabaseUnavailable."""
    key = acting_key.get() if is_proven() else None
    given = {name: value for name, value in {**detail, "key_id": key}.items() if value not in (None, "")}
    act = Act(by=actor(), via=Via.API, action=action, subject=subject, detail=given)
    await write_act(context.resources.db, act)


def actor() -> str:
    """The operator whose API key acts; or the id of the key, if it is nobody's."""
    return acting_operator.get() or acting_key.get() or "api"


def is_proven() -> bool:
    """Whether an operator's key acts, and not one that is nobody's: two of those may be one person's."""
    return acting_operator.get() is not None
