"""Operators of the console. They are disabled and never deleted: the audit names them.

Whatever takes rights away moves the operator's epoch, which ends every session, also one that begins at that moment.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from core.operators import Role
from storage.postgres.database import Database
from storage.sealing import Sealer

ONE_TIME_S = 3 * 86_400.0
"""Life of a password that was printed for somebody. It may lie in a chat for ever."""

_INSERT = """
INSERT INTO operators (name, role, password) VALUES ($1, $2, $3)
ON CONFLICT (name) DO NOTHING"""
_FIND = """
SELECT name, role, password, must_change, must_change AND password_at < now() - make_interval(secs => $2) AS is_over,
       epoch, totp, language, theme, created_at, signed_in_at, disabled_at
  FROM operators WHERE name = $1"""
_LIST = """
SELECT o.name, o.role, o.must_change, o.totp IS NOT NULL AS has_totp, o.created_at, o.signed_in_at, o.disabled_at,
       (SELECT count(*) FROM operator_sessions s WHERE s.operator = o.name AND s.epoch = o.epoch) AS sessions,
       (SELECT count(*) FROM api_keys k WHERE k.operator = o.name AND k.revoked_at IS NULL
           AND (k.expires_at IS NULL OR k.expires_at > now())) AS keys
  FROM operators o ORDER BY o.name"""

_ENDING = """
WITH changed AS (
    UPDATE operators SET {change}, epoch = epoch + 1 WHERE name = $1 RETURNING name
), ended AS (
    DELETE FROM operator_sessions WHERE operator IN (SELECT name FROM changed)
)
SELECT count(*) FROM changed"""
_DISABLE = _ENDING.format(change="disabled_at = coalesce(disabled_at, now())")
_RESET = _ENDING.format(
    change="""password = $2, password_at = now(), must_change = true, totp = NULL, totp_step = 0,
                         disabled_at = NULL"""
)
_SET_ROLE = _ENDING.format(change="role = $2")
_ENABLE = "UPDATE operators SET disabled_at = NULL WHERE name = $1"

_SIGNED_IN = """
UPDATE operators
   SET signed_in_at = now(), password = CASE WHEN epoch = $3 THEN coalesce($2, password) ELSE password END
 WHERE name = $1"""
_CHANGE = """
WITH changed AS (
    UPDATE operators SET password = $2, password_at = now(), must_change = false, epoch = epoch + 1
     WHERE name = $1 AND epoch = $4 RETURNING name, epoch
), ended AS (
    DELETE FROM operator_sessions WHERE operator IN (SELECT name FROM changed) AND digest <> $3
)
UPDATE operator_sessions s SET epoch = c.epoch FROM changed c WHERE s.digest = $3"""
_REMOVE_TOTP = "UPDATE operators SET totp = NULL WHERE name = $1"
_USE_STEP = "UPDATE operators SET totp_step = $2 WHERE name = $1 AND totp_step < $2"
_SET_LOOK = "UPDATE operators SET language = $2, theme = $3 WHERE name = $1"
_SEALED = """
SELECT name, NULL::bytea AS session, totp AS sealed FROM operators WHERE totp IS NOT NULL
UNION ALL
SELECT operator, digest, totp_pending FROM operator_sessions WHERE totp_pending IS NOT NULL
 ORDER BY name"""
_RESEAL = "UPDATE operators SET totp = $2 WHERE name = $1 AND totp = $3"
_RESEAL_OFFERED = "UPDATE operator_sessions SET totp_pending = $2 WHERE digest = $1 AND totp_pending = $3"


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """A stored operator, `totp` sealed. `is_over`: the password was printed for somebody, and not used in time."""

    name: str
    role: Role
    password: str
    must_change: bool
    is_over: bool
    epoch: int
    totp: bytes | None
    language: str
    theme: str
    created_at: datetime
    signed_in_at: datetime | None
    disabled_at: datetime | None


class OperatorRow(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an operator that others may see. `sessions` counts those that are not deleted, `keys` the API
    keys of this operator that have not ended.
    """

    name: str
    role: Role
    must_change: bool
    has_totp: bool
    created_at: datetime
    signed_in_at: datetime | None
    disabled_at: datetime | None
    sessions: int
    keys: int


async def insert_operator(db: Database, name: str, role: Role, password: str) -> bool:
    """Add an operator whose password has to be changed. False: there is one of this name."""
    return await db.execute(_INSERT, name, role, password) == 1


async def find_operator(db: Database, name: str) -> Operator | None:
    """The operator of this name, also a disabled one."""
    row = await db.fetchrow(_FIND, name, ONE_TIME_S)
    return None if row is None else Operator(**{**row, "role": Role(row["role"])})


async def list_operators(db: Database) -> list[OperatorRow]:
    """All of them, by name."""
    return [OperatorRow(**{**row, "role": Role(row["role"])}) for row in await db.fetch(_LIST)]


async def disable_operator(db: Database, name: str) -> bool:
    """Let nobody sign in by this name, and end its sessions. False: there is none."""
    return bool(await db.fetchval(_DISABLE, name))


async def enable_operator(db: Database, name: str) -> bool:
    """The inverse of `disable_operator`; sessions stay ended. False: there is none."""
    return await db.execute(_ENABLE, name) == 1


async def reset_operator(db: Database, name: str, password: str) -> bool:
    """Give a password that has to be changed, take the codes away, enable, and end all sessions. False: there is no
    such operator.
    """
    return bool(await db.fetchval(_RESET, name, password))


async def set_role(db: Database, name: str, role: Role) -> bool:
    """Give this role, and end all sessions. False: there is none of this name."""
    return bool(await db.fetchval(_SET_ROLE, name, role))


async def note_sign_in(db: Database, name: str, *, epoch: int, rehashed: str | None) -> None:
    """Note that somebody signed in; `rehashed` replaces a hash with the parameters of before, if it is still that of
    this epoch.
    """
    await db.execute(_SIGNED_IN, name, rehashed, epoch)


async def set_password(db: Database, name: str, password: str, *, epoch: int, keep: bytes) -> bool:
    """Store the hash of a password that the operator chose, and end all sessions but the one of the digest `keep`.

    False: the password was changed or reset, or rights were taken away, since the epoch in which the old one was right.
    """
    return await db.execute(_CHANGE, name, password, keep, epoch) == 1


async def set_look(db: Database, name: str, *, language: str, theme: str) -> None:
    await db.execute(_SET_LOOK, name, language, theme)


# -- codes -------------------------------------------------------------------------------------------------------------


def seal_totp(sealer: Sealer, name: str, secret: str) -> bytes:
    """The secret as it is stored."""
    return sealer.seal(secret.encode(), belongs_to=_belongs_to(name))


def open_totp(sealer: Sealer, name: str, sealed: bytes) -> str:
    """The secret. Raises ConfigurationError if no master key opens it."""
    return sealer.open(sealed, belongs_to=_belongs_to(name)).decode()


async def remove_totp(db: Database, name: str) -> None:
    await db.execute(_REMOVE_TOTP, name)


async def use_step(db: Database, name: str, step: int) -> bool:
    """Use up the code of this step. False: it was used before, or a later one was."""
    return await db.execute(_USE_STEP, name, step) == 1


async def reseal_operators(db: Database, sealer: Sealer) -> list[str]:
    """Seal the secrets of codes under the first master key, also those that are not confirmed yet; return the names of
    their operators. Every one is opened before the first is written.

    Raises:
        ConfigurationError: one does not open.
    """
    rows = await db.fetch(_SEALED)
    secrets = [open_totp(sealer, row["name"], row["sealed"]) for row in rows]
    for row, secret in zip(rows, secrets, strict=True):
        sealed = seal_totp(sealer, row["name"], secret)
        if row["session"] is None:
            await db.execute(_RESEAL, row["name"], sealed, row["sealed"])
        else:
            await db.execute(_RESEAL_OFFERED, row["session"], sealed, row["sealed"])
    return sorted({row["name"] for row in rows})


def _belongs_to(name: str) -> str:
    return f"codes of operator {name}"
