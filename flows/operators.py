"""Operators are added and reset with a password that is shown once. The command and the console call the same."""

from __future__ import annotations

from core.errors import InvalidRequest, NotFound
from core.operators import Role, check_name, check_password
from core.sentences import Sentence
from runtime.passwords import Passwords, one_time_password
from storage.postgres import operators
from storage.postgres.database import Database


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
