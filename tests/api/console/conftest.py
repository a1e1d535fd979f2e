"""The application with its console, and operators who are signed in without a password: a hash takes too long."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import urlencode

import pytest
from msgspec.structs import replace

from api.console.gate import LOCAL
from api.console.visit import csrf_of
from api.context import Context
from api.http.asgi import App
from core.operators import Role
from core.settings import Settings
from runtime.resources import Resources
from storage.postgres.operators import find_operator, insert_operator
from storage.postgres.sessions import begin_session, digest_of
from tests.api.driver import Client, Response

ORIGIN = "http://pay.test"
FORM = "application/x-www-form-urlencoded"
NO_PASSWORD = "none"  # not a hash, so no password is right


class ConsoleClient:
    """An operator's browser: it sends the cookie with everything, and token and origin with forms."""

    def __init__(self, app: App[Context], cookie: str, name: str) -> None:
        self.client = Client(app)
        self.cookie = cookie
        self.name = name

    @property
    def csrf(self) -> str:
        return csrf_of(digest_of(self.cookie))

    @property
    def headers(self) -> dict[str, str]:
        return {"cookie": f"{LOCAL.session}={self.cookie}"}

    async def get(self, target: str, **headers: str) -> Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.client.call("GET", target, headers=self.headers | named)

    async def post(
        self,
        target: str,
        form: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        csrf: str | None = None,
        **headers: str,
    ) -> Response:
        """Send a form. `csrf` None: the right one. Headers come in place of ours."""
        pairs = list(form.items() if isinstance(form, Mapping) else form)
        body = urlencode([("csrf", self.csrf if csrf is None else csrf), *pairs]).encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        sent = {"content-type": FORM, "origin": ORIGIN} | self.headers | named
        return await self.client.call("POST", target, body=body, headers=sent)

    async def act(self, target: str, form: Mapping[str, str] | None = None) -> Response:
        """Send the form of an act with a reason, and get the page that it leads to."""
        sent = await self.post(target, {"reason": "because of a test", **(form or {})})
        assert sent.status == 303, (sent.status, sent.body.decode())
        return await self.get(sent.headers["location"])


SignedIn = Callable[..., Awaitable[ConsoleClient]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ops=True)


@pytest.fixture
def signed_in(app: App[Context], resources: Resources) -> SignedIn:
    """A browser of an operator with this role, whose name is that of the role unless another is given."""

    async def sign_in(role: Role, name: str = "") -> ConsoleClient:
        name = name or role.value
        return ConsoleClient(app, await open_session(resources, role, name), name)

    return sign_in


async def open_session(resources: Resources, role: Role, name: str) -> str:
    """The cookie of a new session; the operator is added unless there is one of this name."""
    if await insert_operator(resources.db, name, role, NO_PASSWORD):
        await resources.db.execute("UPDATE operators SET must_change = false WHERE name = $1", name)
    operator = await find_operator(resources.db, name)
    assert operator is not None
    return await begin_session(resources.db, name, operator.epoch, address="203.0.113.9", device="a test")
