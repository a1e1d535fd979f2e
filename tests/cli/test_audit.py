"""Acts of people by commands, and the two roles of Postgres of which one cannot change what was written."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import click
import pytest

from cli.__main__ import nodrop as command
from core.act_names import ActName
from core.settings import Settings
from demo.embedded import EmbeddedPostgres
from runtime.resources import Resources
from storage.postgres.audit import Act, Via, can_change_acts, list_acts, write_act
from storage.postgres.database import Database
from storage.postgres.observations import DAYS_AHEAD, keep_partitions
from tests.cli.nodrop import Nodrop
from tests.cli.test_help import commands

READING = {
    "alerts list",
    "notifications list", "notifications show", "endpoints list",
    "callbacks list", "callbacks show",
    "accounts check", "accounts list", "approvals list", "audit", "cases list", "config check", "config show",
    "accounts show", "cases show", "days list", "days show", "dead-letters list", "disputes list", "explain",
    "keys list", "keys master", "keys notify", "operators list", "orders find",
    "days requests", "disputes show", "endpoints show",
    "orders list", "orders show",
    "reconciliations list", "reconciliations show", "secrets list", "top",
}  # fmt: skip
"""Commands that change nothing here."""

WRITING = {
    "alerts test": (ActName.ALERT_TEST, ("--wait", "0")),
    "accounts add": (ActName.ACCOUNT_ADD, ("main", "--from", "{account}")),
    "accounts disable": (ActName.ACCOUNT_DISABLE, ("main", "--reason", "x")),
    "accounts enable": (ActName.ACCOUNT_ENABLE, ("main", "--reason", "x")),
    "accounts reseal": (ActName.SECRETS_RESEAL, ()),
    "accounts rotate": (ActName.ACCOUNT_ROTATE, ("main", "--from", "{account}")),
    "callbacks explain": (ActName.CALLBACK_EXPLAIN, ("6f1c2d9e-0d4b-4a53-9a53-0c7a2f5d1e11",)),
    "approvals approve": (ActName.REFUND_APPROVE, ("7", "--by", "alice", "--reason", "x")),
    "approvals decline": (ActName.REFUND_DECLINE, ("7", "--by", "alice", "--reason", "no")),
    "cases assign": (ActName.CASE_ASSIGN, ("7", "--to", "alice", "--by", "alice")),
    "cases resolve": (ActName.CASE_RESOLVE, ("7", "--reason", "none", "--by", "alice")),
    "days request": (ActName.STATEMENT_READ, ("main", "2026-11-22")),
    "lookup": (ActName.ORDER_LOOKUP, ("main", "n-1")),
    "days sign-off": (ActName.DAY_SIGN_OFF, ("main", "2026-11-22", "--by", "alice", "--reason", "x")),
    "dead-letters resend": (ActName.NOTIFICATIONS_RESEND, ("--all", "--reason", "x", "--yes")),
    "endpoints pause": (ActName.ENDPOINT_PAUSE, ("https://shop.test/hook", "--by", "alice", "--reason", "they move")),
    "endpoints resume": (ActName.ENDPOINT_RESUME, ("https://shop.test/hook", "--reason", "they are back")),
    "keys create": (ActName.KEY_CREATE, ("shop",)),
    "keys revoke": (ActName.KEY_REVOKE, ("key_1",)),
    "operators add": (ActName.OPERATOR_ADD, ("alice", "--role", "admin")),
    "operators disable": (ActName.OPERATOR_DISABLE, ("alice",)),
    "operators enable": (ActName.OPERATOR_ENABLE, ("alice",)),
    "operators reset": (ActName.OPERATOR_RESET, ("alice",)),
    "operators role": (ActName.OPERATOR_ROLE, ("alice", "viewer")),
    "notifications resend": (ActName.NOTIFICATIONS_RESEND, ("--dead", "--reason", "they are back", "--yes")),
    "orders accept": (ActName.ORDER_ACCEPT, ("A-1", "--by", "alice", "--reason", "x")),
    "orders attach": (
        ActName.ORDER_ATTACH,
        ("A-1", "--account", "main", "--number", "n-1", "--by", "alice", "--reason", "x", "--yes"),
    ),
    "orders close": (ActName.ORDER_CLOSE, ("A-1", "--reason", "x")),
    "orders erase": (ActName.ORDER_ERASE, ("A-1", "--by", "alice", "--yes", "--reason", "x")),
    "orders export": (ActName.ORDER_EXPORT, ("A-1",)),
    "orders refresh": (ActName.ORDER_QUERY, ("A-1", "--reason", "x")),
    "orders refund": (ActName.ORDER_REFUND, ("A-1", "--out-trade-no", "n", "--by", "alice", "--reason", "x", "--yes")),
    "reconcile": (ActName.STATEMENT_READ, ("--account", "main")),
    "secrets remove": (ActName.SECRET_REMOVE, ("shop.example.com",)),
    "secrets retire": (ActName.SECRET_RETIRE, ("shop.example.com",)),
    "secrets rotate": (ActName.SECRET_ROTATE, ("shop.example.com",)),
    "secrets set": (ActName.SECRET_SET, ("shop.example.com",)),
}
"""Commands that change something, or show what is personal: the act that each is, and arguments."""

AFTER_A_LOOK = {"days confirm"}
"""Commands that read first what their act is about: tested with that."""

OTHERS = {"demo", "up", "migrate"}
"""Servers of their own, and the release step, which the table of migrations records."""


def test_every_command_reads_or_writes() -> None:
    leaves = {name for name, found in commands().items() if not isinstance(found, click.Group)}
    explained = {name for name in leaves if name.startswith("explain ")}
    assert leaves - explained - OTHERS == (READING - {"explain"} | WRITING.keys() | AFTER_A_LOOK) & leaves
    assert WRITING.keys() <= leaves
    assert isinstance(command, click.Group)


@pytest.mark.parametrize("name", WRITING)
async def test_a_command_that_writes_leaves_a_row_first(
    nodrop: Nodrop, resources: Resources, tmp_path: Path, name: str
) -> None:
    """Whatever becomes of it: here most of them find nothing to change."""
    account = tmp_path / "main.toml"
    account.write_text(
        'channel = "sandbox"\nbase_url = "http://127.0.0.1:9"\n[credentials]\nmerchant_id = "m"\n'
        'keys.k1 = "a secret of at least 32 characters, for a test"\n'
    )
    account.chmod(0o600)
    action, texts = WRITING[name]
    arguments = [text.format(account=account) for text in texts]
    ran = await nodrop(*name.split(" "), *arguments)
    assert ran.code != 2, ran.err
    (act,) = await list_acts(resources.db, limit=10)
    assert (act.action, act.via) == (action, "command")
    assert act.by == ("alice" if "--by" in arguments else act.by)
    assert act.by
    assert "secret of at least" not in str(act.detail)


async def test_the_list_says_who_did_what(nodrop: Nodrop) -> None:
    await nodrop("cases", "resolve", "7", "--resolution", "none", "--by", "alice")
    await nodrop("secrets", "set", "shop.example.com")
    rows = (await nodrop("audit", "--json")).json
    assert [(row["action"], row["subject"]) for row in rows] == [
        ("secret.set", "shop.example.com"),
        ("case.resolve", "7"),
    ]
    shown = await nodrop("audit", "--about", "7")
    assert "alice" in shown.out
    assert "secret.set" not in shown.out
    assert "there are more" in (await nodrop("audit", "--limit", "1")).err


# -- two roles ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_roles(postgres: EmbeddedPostgres, environ: dict[str, str]) -> Iterator[Nodrop]:
    """The command line of a deployment whose tables belong to another role than that of its processes."""
    name = uuid4().hex[:12]
    database, owner, application = f"db_{name}", f"owner_{name}", f"app_{name}"
    postgres.create_database(database)
    for role in (owner, application):
        postgres._execute(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    postgres._execute(f"ALTER DATABASE {database} OWNER TO {owner}")
    at = postgres.url(database).rpartition("@")[2]
    environ |= {
        "DATABASE_URL": f"postgres://{application}:pw@{at}",
        "DIRECT_DATABASE_URL": f"postgres://{owner}:pw@{at}",
    }
    yield Nodrop(environ)
    postgres.drop_database(database)
    for role in (owner, application):
        postgres._execute(f"DROP ROLE {role}")


@pytest.fixture
async def application(two_roles: Nodrop) -> AsyncIterator[Database]:
    """The database as processes open it, after the release step."""
    assert (await two_roles("migrate")).code == 0
    db = Database.from_settings(Settings(database_url=two_roles.env["DATABASE_URL"]))
    await db.open()
    yield db
    await db.close()


async def test_the_applications_role_adds_and_reads_rows_and_changes_none(application: Database) -> None:
    await write_act(application, Act(by="alice", via=Via.COMMAND, action=ActName.ORDER_CLOSE, subject="A-1"))
    (row,) = await list_acts(application, limit=10)
    assert (row.by, row.subject) == ("alice", "A-1")
    assert row.role.startswith("app_")
    for statement in (
        "UPDATE audit SET by = 'bob'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "ALTER TABLE audit ADD COLUMN more text",
        "DROP TABLE audit",
        "CREATE TRIGGER t BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION guard_order()",
        "DELETE FROM migrations",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(statement)
    assert await list_acts(application, limit=10) == [row]
    assert not await can_change_acts(application)


async def test_the_applications_role_has_all_else_that_it_needs(application: Database, two_roles: Nodrop) -> None:
    """Its tables, the partitions of observations, and commands."""
    assert (await keep_partitions(application, keep_days=90)) == (DAYS_AHEAD + 1, 0)
    assert (await two_roles("keys", "create", "shop")).code == 0
    assert (await two_roles("secrets", "set", "shop.example.com")).code == 0
    checked = (await two_roles("config", "check", "--json")).json
    (finding,) = [finding for finding in checked if finding["what"] == "audit"]
    assert finding["level"] == "OK"
    assert [finding for finding in checked if finding["level"] == "error"] == []
    for table in await application.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " AND relname NOT IN ('audit', 'migrations') AND relname !~ '^observations_[0-9]'"
    ):
        assert await application.fetchval(
            "SELECT bool_and(has_table_privilege($1, p)) FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS p",
            table["relname"],
        ), table


async def test_rights_that_were_given_before_are_taken_back_by_the_release_step(
    application: Database, two_roles: Nodrop
) -> None:
    """As by default privileges of a hosted Postgres."""
    owner = await asyncpg.connect(two_roles.env["DIRECT_DATABASE_URL"], ssl=False)
    role = await application.fetchval("SELECT current_user")
    await owner.execute(f"GRANT ALL ON audit TO {role}")
    await owner.close()
    assert await can_change_acts(application)
    assert (await two_roles("migrate")).code == 0
    assert not await can_change_acts(application)


async def test_one_role_still_works_and_the_check_says_so(nodrop: Nodrop) -> None:
    ran = await nodrop("config", "check", "--json")
    (finding,) = [finding for finding in ran.json if finding["what"] == "audit"]
    assert (ran.code, finding["level"]) == (0, "OK")
    assert "one role" in finding["says"]
    assert (await nodrop("keys", "create", "shop")).code == 0


async def test_a_poolers_user_is_no_role_and_nothing_is_granted(nodrop: Nodrop, database_url: str) -> None:
    pooled = database_url.replace("//nodrop:", "//nodrop.project:")
    ran = await nodrop("migrate", env={"DATABASE_URL": pooled, "DIRECT_DATABASE_URL": database_url})
    assert ran.code == 0
    assert "nodrop.project of DATABASE_URL is no role of this Postgres" in ran.err
