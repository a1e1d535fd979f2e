"""Checks of a configuration that use it: Postgres, Redis, the accounts, and the API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from channels.adapters import open_channel
from channels.transport import Transport
from cli.config.variables import first_key_id
from cli.environment import stop_for
from cli.findings import Finding, Level
from core.errors import ConfigurationError, NodropError
from core.settings import Settings
from runtime.clock import Clock
from runtime.identity import check_identity
from storage.postgres.accounts import SealedAccount, open_account, sealed_accounts
from storage.postgres.api_keys import list_api_keys
from storage.postgres.audit import can_change_acts
from storage.postgres.database import CONNECTIONS_MAX, Database
from storage.postgres.migrate import missing_migrations
from storage.postgres.operators import list_operators
from storage.redis.address import redis_address
from storage.redis.checks import check_redis
from storage.redis.client import JobRedis, close_redis, open_job_redis, redis_errors
from storage.redis.connection import CONNECTIONS_MAX as REDIS_CONNECTIONS_MAX
from storage.redis.rights import missing_rights
from storage.sealing import Sealer

_SERVER = """
SELECT current_setting('server_version') AS version,
       least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true)::int, 0),
             (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())) AS connections"""


async def check_stores(settings: Settings) -> list[Finding]:
    """A finding for each thing that was checked. A store that cannot be reached is an error; the rest is checked."""
    findings = [finding async for finding in _postgres(settings)] if settings.database_url else []
    findings += [finding async for finding in _redis(settings)] if settings.redis_url else []
    if any(finding.level is Level.ERROR for finding in findings) or not (settings.database_url and settings.redis_url):
        return findings
    return findings + await _deployment(settings)


async def _deployment(settings: Settings) -> list[Finding]:
    """Whether Redis is used by another deployment too."""
    db, redis = Database.from_settings(settings), open_job_redis(redis_address(settings))
    await db.open()
    try:
        await check_identity(db, redis)
    except NodropError as error:
        return [Finding("deployment", Level.ERROR, error.detail)]
    finally:
        await close_redis(redis)
        await db.close()
    return []


async def _postgres(settings: Settings) -> AsyncIterator[Finding]:
    try:
        db = Database.from_settings(settings)
    except ConfigurationError:
        return  # a finding of the variable already
    await db.open()
    try:
        yield await _server(db, settings)
        missing = await missing_migrations(settings.database_url, settings.database_tls)
        if missing:
            yield Finding("migrations", Level.ERROR, f"missing: {', '.join(missing)}; run `nodrop migrate`")
            return
        yield Finding("migrations", Level.OK, "none is missing")
        keys = sum(key.valid for key in await list_api_keys(db))
        hint = "none: `nodrop keys create NAME` makes one"
        yield Finding("API keys", Level.OK if keys else Level.WARNING, f"{keys} valid" if keys else hint)
        if settings.ops:
            yield await _operators(db)
        yield await _audit(db)
        for finding in await _accounts(db, settings):
            yield finding
    except Exception as error:  # noqa: BLE001 - a bug is raised again
        yield Finding("Postgres", Level.ERROR, _message(error))
    finally:
        await db.close()


async def _operators(db: Database) -> Finding:
    active = sum(row.disabled_at is None for row in await list_operators(db))
    hint = "none: `nodrop operators add NAME --role admin` adds one"
    return Finding("operators", Level.OK if active else Level.WARNING, f"{active} may sign in" if active else hint)


async def _audit(db: Database) -> Finding:
    if await can_change_acts(db):
        text = "one role: the user of DATABASE_URL could drop what keeps these rows; docs/operations.md has two roles"
        return Finding("audit", Level.OK, text)
    return Finding("audit", Level.OK, "two roles: the user of DATABASE_URL adds rows and cannot change them")


async def _server(db: Database, settings: Settings) -> Finding:
    row = await db.fetchrow(_SERVER)
    assert row is not None
    needed = CONNECTIONS_MAX * settings.processes + 1
    budget = f"Postgres {row['version']}, {row['connections']} connections, {needed} needed"
    if row["connections"] < needed:
        return Finding(
            "Postgres",
            Level.WARNING,
            f"{budget} by {settings.processes} processes and a command: run fewer, raise its limit, or put a pooler "
            "in front; PROCESSES says how many there are",
        )
    clock = Clock()
    await clock.keep(db)
    if clock.verdict.is_corrected and clock.verdict.skew_s is not None:
        differ = f"its clock and this machine's differ by {abs(clock.verdict.skew_s):.0f} s"
        return Finding("Postgres", Level.WARNING, f"{budget}; {differ}")
    return Finding("Postgres", Level.OK, budget)


async def _redis(settings: Settings) -> AsyncIterator[Finding]:
    try:
        redis = open_job_redis(redis_address(settings))
    except ConfigurationError:
        return  # a finding of the variable already
    try:
        await check_redis(redis)
        with redis_errors():
            info = cast("Mapping[str, Any]", await redis.info())
        yield _redis_server(info, settings)
        yield await _redis_rights(redis)
    except NodropError as error:
        yield Finding("Redis", Level.ERROR, _message(error))
    finally:
        await close_redis(redis)


async def _redis_rights(redis: JobRedis) -> Finding:
    """Whether the user of `REDIS_URL` may do what is needed; one of web processes may not run workers."""
    web, worker = await missing_rights(redis)
    says = "enough for web processes and workers"
    if web and worker:
        missing = ", ".join(dict.fromkeys((*web, *worker)))
        text = f"this user may not run: {missing}; docs/operations.md has the access lists"
        return Finding("Redis rights", Level.ERROR, text)
    if web:
        says = f"enough for workers; web processes also need {', '.join(web)}"
    if worker:
        says = f"enough for web processes; workers also need {', '.join(worker)}"
    return Finding("Redis rights", Level.OK, says)


def _redis_server(info: Mapping[str, Any], settings: Settings) -> Finding:
    version = f"Redis {info.get('redis_version')}"
    needed = REDIS_CONNECTIONS_MAX * settings.processes
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        policy = info["maxmemory_policy"]
        text = f"{version}: maxmemory-policy is {policy}, so jobs may be thrown away before they are due; noeviction"
        return Finding("Redis", Level.WARNING, text)
    if int(info.get("maxclients", needed)) < needed:
        text = f"{version}: {info['maxclients']} connections, {needed} needed by {settings.processes} processes"
        return Finding("Redis", Level.WARNING, text)
    is_kept = bool(info.get("aof_enabled"))
    return Finding("Redis", Level.OK, version + ("" if is_kept else "; appendonly yes would keep jobs over a restart"))


async def _accounts(db: Database, settings: Settings) -> list[Finding]:
    rows = await sealed_accounts(db)
    if not rows:
        return [Finding("accounts", Level.WARNING, "none: `nodrop accounts add NAME --from FILE` adds one")]
    try:
        sealer = Sealer.from_setting(settings.nodrop_master_keys)
    except ConfigurationError:
        return [Finding("accounts", Level.ERROR, f"{len(rows)} cannot be opened without NODROP_MASTER_KEYS")]
    try:
        async with Transport(timeout_s=1.0) as transport:
            return [_account(row, sealer, transport, settings) for row in rows]
    except ConfigurationError as error:
        return [Finding("SSL_CERT_FILE", Level.ERROR, error.detail.removeprefix("SSL_CERT_FILE: "))]


def _account(row: SealedAccount, sealer: Sealer, transport: Transport, settings: Settings) -> Finding:
    what = f"account {row.name}"
    try:
        account = open_account(row, sealer)
        open_channel(account, transport)
    except ConfigurationError as error:
        return Finding(what, Level.ERROR, error.detail.removeprefix(f"{what}: "))
    sealed_by = row.sealed.partition(b"\0")[0].decode(errors="replace")
    if sealed_by != first_key_id(settings):
        text = f"sealed under {sealed_by}, which is not the first master key: `nodrop accounts reseal`"
        return Finding(what, Level.WARNING, text)
    return Finding(what, Level.OK, f"{account.channel} at {account.base_url}" + (", live" if account.live else ""))


def _message(error: Exception) -> str:
    """The line about an expected fault; any other error is a bug and keeps its trace."""
    stop = stop_for(error)
    if stop is None:
        raise error
    return stop.message
