"""Raw bodies of stored callbacks, which are sealed: opened for a person, and sealed anew under another master key."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

import msgspec

from core.errors import ConfigurationError
from storage.postgres.database import Database, document
from storage.postgres.inbox import belongs_to
from storage.sealing import Sealer

PAGE = 200


class Resealed(NamedTuple):
    """The numbers of bodies that were sealed anew, and that were not, because no master key opens them."""

    sealed: int
    unopened: int


# A page is of all callbacks, so that no statement reads further than that; only bodies to be sealed come with it.
_PAGE = f"""
SELECT id, channel_account, notification_id, headers::text, sealed_under,
       CASE WHEN sealed_under IS DISTINCT FROM $2 AND body <> '' THEN body END AS body
  FROM callbacks WHERE id > $1 ORDER BY id LIMIT {PAGE}"""

# Only over the very bytes that were opened: a body that was erased meanwhile does not come back.
_PUT = """
UPDATE callbacks c SET body = r.body, headers = r.headers::jsonb, sealed_under = $5
  FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::text[]) AS r(id, before, body, headers)
 WHERE c.id = r.id AND c.body = r.before"""


def open_body(sealer: Sealer, *, account: str, notification_id: str, body: bytes, sealed_under: str | None) -> bytes:
    """The raw bytes of a stored callback; one of an earlier version lies there as it came.

    Raises:
        ConfigurationError: no master key opens it.
    """
    return body if sealed_under is None else sealer.open(body, belongs_to=belongs_to(account, notification_id))


async def reseal_callbacks(db: Database, sealer: Sealer, header_names: Collection[str]) -> Resealed:
    """Seal all bodies under the first master key, page by page; those in the clear too, without headers that are not
    among `header_names`.
    """
    sealed, unopened, after = 0, 0, UUID(int=0)
    while page := await db.fetch(_PAGE, after, sealer.first):
        after = page[-1]["id"]
        rows = []
        for row in page:
            if row["body"] is None:
                continue
            try:
                rows.append(_resealed(sealer, row, header_names))
            except ConfigurationError:
                unopened += 1
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            sealed += await db.execute(_PUT, *columns, sealer.first)
    return Resealed(sealed, unopened)


def _resealed(sealer: Sealer, row: object, header_names: Collection[str]) -> tuple[UUID, bytes, bytes, str]:
    """The row of `_PUT`. Raises ConfigurationError as `open_body`."""
    fields = dict(row)  # type: ignore[call-overload]  # a Record is a mapping, and says so in no type
    account, notification_id = fields["channel_account"], fields["notification_id"]
    plain = open_body(
        sealer,
        account=account,
        notification_id=notification_id,
        body=fields["body"],
        sealed_under=fields["sealed_under"],
    )
    headers = msgspec.json.decode(fields["headers"], type=dict[str, str])
    kept = {name: text for name, text in headers.items() if name in header_names}
    sealed = sealer.seal(plain, belongs_to=belongs_to(account, notification_id))
    return fields["id"], fields["body"], sealed, document(kept)
