"""`nodrop config`: the settings that processes read from this environment, and checks of them. No secret is shown."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import parse_qsl, urlsplit

import click

from cli.config.variables import check_settings
from cli.environment import current_settings, log_to_stderr
from cli.findings import has_error
from cli.output import json_option, print_json, print_table
from core.settings import Settings

MASKED = "***"
PLAIN = frozenset(
    "REDIS_SENTINELS REDIS_SENTINEL_MASTER PUBLIC_URL HOST NOTIFY_ALLOW_NETS RECONCILE_AT LOG_LEVEL"
    " PAGE_ORIGINS SHOP_NAME SHOP_LOGO SHOP_COLOR SHOP_CONTACT OPS_REFUND_ALONE_MAX".split()
)
"""Texts that hold no secret; any other text is masked."""

PUBLIC_PARAMETERS = ("sslmode", "channel_binding", "application_name")


@click.group(epilog="Example: nodrop config check")
def config() -> None:
    """Check and show the configuration."""


@config.command(epilog="Example: nodrop config check --offline")
@click.option("--offline", is_flag=True, help="Look at the variables alone; connect to nothing.")
@json_option
def check(*, offline: bool, as_json: bool) -> None:
    """Check this environment, and name what to set.

    Reads it as every process does, then connects to Postgres and to Redis and opens every account. Exit code 2 when a
    variable is wrong or missing, 1 when something does not work, 0 when there are warnings at most.
    """
    settings, findings = check_settings(os.environ)
    is_wrong = has_error(findings)
    if not offline:
        from cli.config.stores import check_stores

        log_to_stderr("error")  # the table says the same
        findings += asyncio.run(check_stores(settings))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(("what", "state", "says"), findings, empty="")
    raise SystemExit(2 if is_wrong else 1 if has_error(findings) else 0)


@config.command(epilog="Example: nodrop config show --json")
@json_option
def show(*, as_json: bool) -> None:
    """Show every setting that is in force, secrets masked.

    docs/configuration.md explains each.
    """
    settings = current_settings()
    rows = [(name, masked(name, settings), _source(name)) for name in Settings.__struct_encode_fields__]
    if as_json:
        print_json([{"name": name, "value": value, "from": source} for name, value, source in rows])
    else:
        print_table(("name", "value", "from"), rows, empty="")


def masked(name: str, settings: Settings) -> object:
    """A setting as it may be shown: no password, no key, and of a certificate only that there is one."""
    value: object = getattr(settings, name.lower())
    if not value or not isinstance(value, str) or name in PLAIN:
        return value
    match name:
        case "DATABASE_URL" | "DIRECT_DATABASE_URL" | "REDIS_URL" | "EGRESS_PROXY":
            return _masked_url(value)
        case "ALERT_URL":
            return _masked_path(value)
        case "DATABASE_TLS" | "REDIS_TLS":
            return "ca:<PEM>" if "-----BEGIN" in value else value
        case "NODROP_MASTER_KEYS":
            return ",".join(_masked_key(item.strip()) for item in value.split(","))
    return MASKED


def _masked_key(item: str) -> str:
    """A master key by its id."""
    key_id, colon, _ = item.partition(":")
    return f"{key_id}:{MASKED}" if colon else MASKED


def _masked_url(url: str) -> str:
    """Scheme, user, host and path; the password, and whatever a driver takes in the query, are masked.

    A `/`, `?` or `#` that was not encoded ends the password too early, and the rest of it looks like something else:
    then nothing is shown.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASKED
    if not parts.scheme or not parts.hostname or parts.fragment or "@" in parts.path + parts.query:
        return MASKED
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    login = f"{user}:{MASKED}@" if colon else f"{user}@" if user else ""
    query = "&".join(f"{key}={value if key in PUBLIC_PARAMETERS else MASKED}" for key, value in parse_qsl(parts.query))
    return f"{parts.scheme}://{login}{parts.hostname}{port}{parts.path}" + (f"?{query}" if query else "")


def _masked_path(url: str) -> str:
    """Scheme and host of an address whose path may be all that protects it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASKED
    return f"{parts.scheme}://{parts.hostname}/{MASKED}" if parts.scheme and parts.hostname else MASKED


def _source(name: str) -> str:
    return "environment" if os.environ.get(name, "").strip() else "default"
