"""The operator's own page: password, codes of an app, language and colours, and the sessions that are open."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
import pyotp
from markupsafe import Markup

from api.console import texts
from api.console.render import render, see_other
from api.console.signin import PASSWORDS
from api.console.visit import Visit
from api.context import Context
from api.http.errors import SignInNeeded
from api.http.response import Reply, Response
from api.pages.qr import svg
from core.act_names import ActName
from core.errors import InvalidRequest, NotFound
from core.operators import check_password
from flows.sign_in import check_code, check_own_password
from storage.postgres import offered_codes, operators, sessions
from storage.postgres.offered_codes import find_offered_codes, offer_codes
from storage.postgres.operators import Operator, find_operator
from storage.postgres.sessions import Ends

PATH = "/ops/me"
THEMES = ("", "light", "dark")


class PasswordForm(msgspec.Struct, frozen=True, kw_only=True):
    old: str
    new: str
    again: str


class LookForm(msgspec.Struct, frozen=True, kw_only=True):
    language: str = ""
    theme: str = ""


async def show(context: Context, visit: Visit) -> Reply:
    return await _page(context, visit)


async def change_password(context: Context, visit: Visit) -> Reply:
    """Store the new one, and end the other sessions."""
    form = PasswordForm(**{name: visit.form.get(name, "") for name in ("old", "new", "again")})
    operator = await _self(visit)
    if form.new != form.again:
        return await _page(context, visit, fault="me.password_differ")
    check_password(form.new, name=operator.name)
    if not await check_own_password(context.resources, PASSWORDS, operator, form.old):
        return await _page(context, visit, fault="me.password_wrong")
    if form.new == form.old:
        return await _page(context, visit, fault="me.password_same")
    await visit.record(ActName.OPERATOR_PASSWORD, operator.name)
    hashed = await PASSWORDS.hash(form.new)
    keep, epoch = visit.session.digest, operator.epoch
    if not await operators.set_password(visit.db, operator.name, hashed, epoch=epoch, keep=keep):
        raise SignInNeeded("the password was changed or reset meanwhile: sign in with that one")
    return see_other(PATH, "me.password_changed")


async def set_look(_context: Context, visit: Visit) -> Reply:
    form = visit.read_form(LookForm)
    if form.language not in ("", *texts.LANGUAGES) or form.theme not in THEMES:
        raise InvalidRequest("there is no such language, or there are no such colours")
    await operators.set_look(visit.db, visit.operator, language=form.language, theme=form.theme)
    return see_other(PATH, "me.look_saved")


async def end_session(_context: Context, visit: Visit) -> Reply:
    """End one of the operator's own sessions, which may be this one."""
    session_id = visit.params["session_id"]
    await visit.record(ActName.OPERATOR_END_SESSION, visit.operator, {"session": session_id})
    if not await sessions.end_session_of(visit.db, visit.operator, session_id):
        raise NotFound("you have no such session")
    return see_other(PATH, "me.session_ended")


# -- codes -------------------------------------------------------------------------------------------------------------


async def begin_codes(context: Context, visit: Visit) -> Reply:
    """Show a secret to this session, which is not in force yet. Whoever stole the session alone does not get so far."""
    operator = await _self(visit)
    if operator.totp is not None:
        raise InvalidRequest("codes are on: switch them off first, which needs one of them")
    if not await check_own_password(context.resources, PASSWORDS, operator, visit.form.get("password", "")):
        return await _page(context, visit, fault="me.password_wrong")
    sealer, secret, digest = context.resources.sealer, pyotp.random_base32(), visit.session.digest
    if not await offer_codes(visit.db, sealer, operator.name, secret, session=digest, epoch=operator.epoch):
        raise SignInNeeded("the password was changed or reset meanwhile: sign in with that one")
    return see_other(PATH)


async def confirm_codes(context: Context, visit: Visit) -> Reply:
    """Put the secret into force once the app has made a code of it."""
    operator = await _self(visit)
    sealed = await _offered(visit, operator)
    if sealed is None:
        raise NotFound("no codes are being set up in this session, or the ten minutes are over: begin once more")
    await visit.record(ActName.OPERATOR_CODES_ON, operator.name)
    if not await check_code(context.resources, operator, sealed, visit.form.get("code", "")):
        return await _page(context, visit, fault="me.codes_wrong")
    if not await offered_codes.confirm_codes(visit.db, visit.session.digest, sealed=sealed):
        raise NotFound("another secret was shown since: set the codes up once more")
    return see_other(PATH, "me.codes_confirmed")


async def remove_codes(context: Context, visit: Visit) -> Reply:
    """Sign in without codes from now on: for whoever knows the password and has a code."""
    operator = await _self(visit)
    if operator.totp is None:
        raise NotFound("codes are off")
    if not await check_own_password(context.resources, PASSWORDS, operator, visit.form.get("password", "")):
        return await _page(context, visit, fault="me.password_wrong")
    if not await check_code(context.resources, operator, operator.totp, visit.form.get("code", "")):
        return await _page(context, visit, fault="me.codes_wrong")
    await visit.record(ActName.OPERATOR_CODES_OFF, operator.name)
    await operators.remove_totp(visit.db, operator.name)
    return see_other(PATH, "me.codes_removed")


# -- the page ----------------------------------------------------------------------------------------------------------


async def _self(visit: Visit) -> Operator:
    operator = await find_operator(visit.db, visit.operator)
    if operator is None:
        raise NotFound("you are not there any more")
    return operator


async def _offered(visit: Visit, operator: Operator) -> bytes | None:
    """The sealed secret that this session sets up; None: none, its time is over, or codes are on."""
    return None if operator.totp is not None else await find_offered_codes(visit.db, visit.session.digest)


async def _page(context: Context, visit: Visit, *, fault: str = "") -> Response:
    operator, settings = await _self(visit), context.resources.settings
    ends = Ends(settings.ops_idle_s, settings.ops_session_s)
    pending = await _offered(visit, operator)
    secret = None if pending is None else operators.open_totp(context.resources.sealer, operator.name, pending)
    return render(
        visit,
        "me/show.html",
        status=422 if fault else 200,
        title=visit.language.texts["me.title"],
        fault=fault,
        must_change=visit.session.must_change,
        has_codes=operator.totp is not None,
        secret=secret,
        code=None if secret is None else _code(visit, secret, urlsplit(settings.public_url).hostname or ""),
        look=(operator.language, operator.theme),
        themes=THEMES,
        sessions=await sessions.list_sessions(visit.db, operator.name, ends, this=visit.session.digest),
    )


def _code(visit: Visit, secret: str, host: str) -> Markup:
    """The secret as apps scan it. They show the name of the deployment beside that of the operator."""
    address = pyotp.TOTP(secret).provisioning_uri(name=visit.operator, issuer_name=f"nodrop {host}".strip())
    return Markup(svg(address, visit.language.texts["me.codes_qr"]))  # noqa: S704 - drawn here
