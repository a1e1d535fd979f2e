"""Operators are added and reset with a password that is shown once. The command and the console call the same."""

from __future__ import annotations

from core.acts import Line, Preview
from core.errors import InvalidRequest, NotFound
from core.operators import Role, check_name, check_password
from core.sentences import Sentence, Term
from runtime.passwords import Passwords, one_time_password
from storage.postgres import operators
from storage.postgres.database import Database


async def preview_adding(db: Database, name: str, role: Role) -> Preview:
    """Effects of adding an operator. Raises InvalidRequest: the name has not the form of one."""
    check_name(name)
    if await operators.find_operator(db, name) is not None:
        return Preview(lines=(), refusal=Line("operator.exists", {"name": name}))
    return Preview(lines=(Line("operator.is_added", {"name": name, "role": Term("role.", role)}),))


async def preview_disabling(db: Database, name: str) -> Preview:
    """Effects of disabling an operator. Raises NotFound."""
    row = await _find(db, name)
    if row.disabled_at is not None:
        return Preview(lines=(), refusal=Line("operator.is_off", {"name": name}))
    lines = [Line("operator.is_disabled", {"name": name}), Line("operator.loses", {"sessions": row.sessions})]
    if row.keys:
        lines.append(Line("operator.loses_keys", {"name": name, "keys": row.keys}))
    return Preview(lines=tuple(lines))


async def preview_enabling(db: Database, name: str) -> Preview:
    """Effects of enabling an operator. Raises NotFound."""
    row = await _find(db, name)
    if row.disabled_at is None:
        return Preview(lines=(), refusal=Line("operator.is_on", {"name": name}))
    return Preview(lines=(Line("operator.is_enabled", {"name": name}),))


async def preview_reset(db: Database, name: str) -> Preview:
    """Effects of giving an operator a one-time password. Raises NotFound."""
    row = await _find(db, name)
    lines = (Line("operator.is_reset", {"name": name}), Line("operator.loses", {"sessions": row.sessions}))
    return Preview(lines=lines)


async def preview_role(db: Database, name: str, role: Role) -> Preview:
    """Effects of another role. Raises NotFound."""
    row = await _find(db, name)
    if row.role is role:
        return Preview(lines=(), refusal=Line("operator.has_role", {"name": name, "role": Term("role.", role)}))
    becomes = Line("operator.becomes", {"name": name, "before": Term("role.", row.role), "role": Term("role.", role)})
    return Preview(lines=(becomes, Line("operator.loses", {"sessions": row.sessions})))


async def _find(db: Database, name: str) -> operators.OperatorRow:
    row = next((row for row in await operators.list_operators(db) if row.name == name), None)
    if row is None:
        raise NotFound(Sentence("there is no operator {operator}", operator=name))
    return row


async def add_operator(db: Database, passwords: Passwords, name: str, role: Role, password: str | None = None) -> str:
    """Add an operator, who has to change the password at the first sign-in; return it. None: one is made.

    Raises:
        InvalidRequest: the name or the password has not the form of one, or there is such an operator already, perhaps
            a disabled one.
    """
    check_name(name)
    given = one_time_password() if password is None else check_password(password, name=name)
    if not await operators.insert_operator(db, name, role, await passwords.hash(given)):
        raise InvalidRequest(Sentence("there is an operator {operator} already", operator=name))
    return given


async def reset_operator(db: Database, passwords: Passwords, name: str, password: str | None = None) -> str:
    """Give an operator a password to be changed, and take codes and sessions away; return it. None: one is made.

    Raises:
        InvalidRequest: the password has not the form of one.
        NotFound: there is no such operator.
    """
    given = one_time_password() if password is None else check_password(password, name=name)
    if not await operators.reset_operator(db, name, await passwords.hash(given)):
        raise NotFound(Sentence("there is no operator {operator}", operator=name))
    return given
