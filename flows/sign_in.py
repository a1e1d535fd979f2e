"""An operator signs in: within limits, by password and, where it is set up, a code that is used once.

A stranger learns nothing from the answer: an unknown name, a wrong password and a wrong code are the same and take as
long. Whoever tries the name of an operator from elsewhere uses up the tries from elsewhere, and not those of a place
from which that operator has signed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from typing import NamedTuple

import pyotp
import structlog

from core.act_names import ActName
from core.errors import InvalidRequest, TooManyRequests
from runtime.passwords import Passwords
from runtime.resources import Resources
from storage.postgres.audit import Act, Via, write_act
from storage.postgres.operators import Operator, find_operator, note_sign_in, open_totp, use_step
from storage.postgres.sessions import begin_session
from storage.postgres.sign_in_limits import Limit, forget, give_back, is_kept, keep, key_of, take

PER_ADDRESS = Limit(20, 6.0)
PER_NAME = Limit(10, 60.0)
PER_NAME_THERE = Limit(10, 30.0)
"""From an address where this operator has signed in within the last month."""

ALL_STRANGERS = Limit(300, 1.0)
PER_CODE = Limit(5, 600.0)
"""Of an operator whose password is known: a million codes are not tried."""

NOBODYS_ROWS = Limit(30, 60.0)
"""Rows of the audit about names that nobody has: strangers must not fill it."""

KNOWN_S = 30 * 86_400.0
STEP_S = 30
NOBODY = "(nobody)"

log = structlog.get_logger()


class Attempt(NamedTuple):
    """A sign-in as it was sent. `code` may be empty."""

    name: str
    password: str
    code: str
    address: str
    device: str


async def sign_in(resources: Resources, passwords: Passwords, attempt: Attempt) -> str | None:
    """The cookie of a new session; None: the name, the password or the code is wrong.

    Raises:
        TooManyRequests: with the seconds until the next try; nothing was looked at.
        DatabaseUnavailable: nobody is signed in.
    """
    db = resources.db
    known = await _verify(resources, passwords, attempt, Via.CONSOLE)
    if known is None:
        return None
    operator, rehashed = known
    await note_sign_in(db, operator.name, epoch=operator.epoch, rehashed=rehashed)
    return await begin_session(db, operator.name, operator.epoch, address=attempt.address, device=attempt.device)


async def prove_person(resources: Resources, passwords: Passwords, attempt: Attempt) -> bool:
    """Whether the password and the code are this operator's, for one act of a command: no session begins. Within the
    limits of signing in.

    Raises:
        InvalidRequest: the password was printed for somebody, so more than one person may know it.
        TooManyRequests, DatabaseUnavailable: as `sign_in`.
    """
    known = await _verify(resources, passwords, attempt, Via.COMMAND)
    if known is not None and known.operator.must_change:
        raise InvalidRequest("this is a one-time password: sign in to the console first, and change it there")
    return known is not None


async def check_own_password(resources: Resources, passwords: Passwords, operator: Operator, password: str) -> bool:
    """Whether an operator who is signed in knows the password: a session that was stolen must not find it out.

    Raises:
        TooManyRequests: with the seconds until the next try.
    """
    key = key_of("own", operator.name)
    await _take_all(resources, [(key, PER_NAME)])
    is_right = await passwords.verify(password, operator.password) is not None
    if is_right:
        await forget(resources.db, key)
    return is_right


async def check_code(resources: Resources, operator: Operator, sealed: bytes, code: str) -> bool:
    """Whether the code is one of now, 30 s before or after, that was not used. It is used up by this.

    Raises:
        TooManyRequests: with the seconds until the next try.
        ConfigurationError: no master key opens the secret.
    """
    key = key_of("code", operator.name)
    await _take_all(resources, [(key, PER_CODE)])
    step = find_step(open_totp(resources.sealer, operator.name, sealed), code, resources.clock.read())
    if step is None or not await use_step(resources.db, operator.name, step):
        return False
    await forget(resources.db, key)
    return True


def find_step(secret: str, code: str, now_s: float) -> int | None:
    """The step of 30 s whose code this is, at most one from now; None: it is none of those."""
    current, codes = int(now_s) // STEP_S, pyotp.TOTP(secret, interval=STEP_S)
    typed = "".join(code.split()).encode()
    steps = (current, current - 1, current + 1)
    matches = [step for step in steps if compare_digest(codes.at(step * STEP_S).encode(), typed)]
    return matches[0] if matches else None


class _Known(NamedTuple):
    """The operator who was recognised, and a new hash of the password if its parameters have changed."""

    operator: Operator
    rehashed: str | None


async def _verify(resources: Resources, passwords: Passwords, attempt: Attempt, via: Via) -> _Known | None:
    """The operator of the name, the password and the code, written down; None: one of them is wrong. Raises
    TooManyRequests.
    """
    db, place = resources.db, key_of("place", attempt.name, attempt.address)
    limits = await _limits_of(resources, attempt, place)
    await _take_all(resources, limits)
    operator = await find_operator(db, attempt.name)
    hashed = await passwords.verify(attempt.password, None if operator is None else operator.password)
    if operator is None or hashed is None or operator.disabled_at is not None or operator.is_over:
        await _note_failure(resources, attempt, operator, "password" if hashed is None else "over", via)
        return None
    if operator.totp is not None and (wrong := await _wrong_code(resources, operator, operator.totp, attempt.code)):
        await _note_failure(resources, attempt, operator, wrong, via)
        return None
    await _write(resources, operator.name, ActName.SIGN_IN, {"address": attempt.address}, via)
    for key, limit in limits:
        await give_back(db, key, limit)
    await keep(db, place, KNOWN_S)
    return _Known(operator, None if hashed == operator.password else hashed)


async def _wrong_code(resources: Resources, operator: Operator, sealed: bytes, code: str) -> str:
    """The reason why the code opens nothing; empty: it does. Too many tries are no other answer than a wrong code: else
    a stranger who guesses passwords would learn which one is right.
    """
    try:
        return "" if await check_code(resources, operator, sealed, code) else "code"
    except TooManyRequests:
        return "codes"


# -- limits and rows ---------------------------------------------------------------------------------------------------

_Limits = Sequence[tuple[bytes, Limit]]


async def _limits_of(resources: Resources, attempt: Attempt, place: bytes) -> _Limits:
    address = (key_of("address", attempt.address), PER_ADDRESS)
    if await is_kept(resources.db, place):
        return [address, (key_of("there", attempt.name, attempt.address), PER_NAME_THERE)]
    return [address, (key_of("name", attempt.name), PER_NAME), (key_of("strangers"), ALL_STRANGERS)]


async def _take_all(resources: Resources, limits: _Limits) -> None:
    taken: list[tuple[bytes, Limit]] = []
    for key, limit in limits:
        wait_s = await take(resources.db, key, limit)
        if wait_s > 0:
            for earlier, its_limit in taken:
                await give_back(resources.db, earlier, its_limit)
            log.warning("sign_in_limited", retry_after_s=round(wait_s))
            raise TooManyRequests("too many tries to sign in", retry_after_s=wait_s)
        taken.append((key, limit))


async def _note_failure(
    resources: Resources, attempt: Attempt, operator: Operator | None, reason: str, via: Via
) -> None:
    if operator is not None and operator.disabled_at is not None:
        reason = "disabled"
    log.warning("sign_in_failed", reason="name" if operator is None else reason)
    if operator is not None:
        detail = {"address": attempt.address, "wrong": reason}
        await _write(resources, operator.name, ActName.SIGN_IN_FAILED, detail, via)
    elif await take(resources.db, key_of("rows"), NOBODYS_ROWS) == 0:
        detail = {"address": attempt.address, "wrong": "name"}
        await _write(resources, NOBODY, ActName.SIGN_IN_FAILED, detail, via)


async def _write(resources: Resources, by: str, action: ActName, detail: dict[str, str], via: Via) -> None:
    await write_act(resources.db, Act(by=by, via=via, action=action, subject=by, detail=detail))
