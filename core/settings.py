"""The configuration: one frozen struct, read from the environment and checked at start.

Every error names the variable and a correct value.

No setting has a default secret. Times say their unit in their name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from difflib import get_close_matches
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

import msgspec

from core.backoff import Backoff
from core.errors import ConfigurationError, InvalidRequest
from core.money import CURRENCIES, minor_units
from core.shop import check_look

Positive = Annotated[float, msgspec.Meta(gt=0, le=366 * 86_400)]
"""A year at most, in seconds: "inf" is a number to Python, but no duration."""

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

Days = Annotated[int, msgspec.Meta(ge=1, le=36_500)]

SIMILAR = 0.86
"""Likeness of two names, from 0 to 1, from which on one is taken for a slip: a letter more, less or exchanged."""

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[1-9][0-9]{0,4})?", re.ASCII)
"""As browsers write it: lower-case, no path, no port where it is the scheme's own."""

_PUBLIC_URL = re.compile(r"https?://[^/?#\s]+(/[^?#\s]*)?", re.ASCII | re.IGNORECASE)

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)


@cache
def _nets(texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read once: each new order asks."""
    return tuple(ip_network(text.strip()) for text in texts.split(",") if text.strip())


@cache
def _origins(texts: str) -> frozenset[str]:
    origins = frozenset(text.strip() for text in texts.split(",") if text.strip())
    for origin in origins:
        if _ORIGIN.fullmatch(origin) is None or origin.endswith(":443" if origin[4] == "s" else ":80"):
            raise ConfigurationError(
                "PAGE_ORIGINS: set it to origins like https://shop.example.com, with commas between"
            )
    return origins


@cache
def _limits(texts: str) -> Mapping[str, int]:
    wrong = ConfigurationError(
        "OPS_REFUND_ALONE_MAX: set it to amounts like 500 CNY, 80 USD, each currency once, with commas between"
    )
    limits: dict[str, int] = {}
    for text in filter(None, map(str.strip, texts.split(","))):
        amount, _, currency = text.partition(" ")
        if currency in limits or currency not in CURRENCIES:
            raise wrong
        try:
            limits[currency] = minor_units(amount, currency)
        except InvalidRequest:
            raise wrong from None
    return limits


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Every setting; its name in upper case is its environment variable. `docs/configuration.md` explains each."""

    # -- where things are
    database_url: str = ""
    direct_database_url: str = ""
    database_tls: str = ""
    statement_cache_size: Annotated[int, msgspec.Meta(ge=0)] = 100
    startup_parameters: bool = True
    redis_url: str = ""
    redis_tls: str = ""
    redis_sentinels: str = ""
    redis_sentinel_master: str = "mymaster"
    redis_sentinel_password: str = ""
    public_url: str = ""
    page_origins: str = ""
    host: str = "0.0.0.0"  # noqa: S104 - a PaaS routes to every interface of its container
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    trusted_proxy_hops: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    processes: Count = 4
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0

    # -- the console
    ops: bool = False
    ops_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    ops_idle_s: Positive = 1800.0
    ops_session_s: Positive = 43_200.0

    # -- the look of the order pages
    shop_name: str = ""
    shop_logo: str = ""
    shop_color: str = ""
    shop_contact: str = ""

    # -- secrets
    nodrop_master_keys: str = ""
    notify_secrets: str = ""

    # -- back-off
    backoff_unit_s: Positive = 60.0
    backoff_attempts_max: Count = 16
    backoff_jitter: Annotated[float, msgspec.Meta(ge=0, le=0.1)] = 0.0
    arm_horizon_s: Positive = 1800.0

    # -- orders and channels
    order_expires_s: Positive = 1800.0
    payable_margin_s: Positive = 300.0
    lease_s: Positive = 20.0
    channel_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=15)] = 10.0
    callback_body_bytes_max: Count = 65536
    callback_confirm_s: Positive = 2.0
    callback_confirm_slots: Count = 64
    callback_unanswered_s: Positive = 30.0
    refresh_cooldown_s: Positive = 3.0
    page_token_days: Count = 90
    undelivered_interval_s: Positive = 300.0

    # -- the sweep and the lanes
    sweep_interval_s: Positive = 5.0
    sweep_grace_s: Positive = 15.0
    sweep_batch: Count = 100
    max_jobs: Count = 200

    # -- reconciliation
    reconcile_at: str = "10:30"

    # -- what operators may do
    ops_refund_alone_max: str = ""

    # -- notifications
    notify_allow_nets: str = ""
    notify_timeout_s: Positive = 10.0
    notify_resend_per_s: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 20.0
    egress_proxy: str = ""

    # -- alerts
    alert_url: str = ""
    alert_secret: str = ""
    alert_interval_s: Positive = 30.0
    alert_looks: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    alert_overdue_s: Positive = 120.0
    alert_endpoint_s: Positive = 900.0
    alert_paused_s: Positive = 3600.0
    alert_reconciled_s: Positive = 108_000.0
    alert_workers_min: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 1

    # -- retention
    callbacks_keep_days: Days = 180
    notifications_keep_days: Days = 90
    observations_keep_days: Days = 90
    cases_keep_days: Days = 365
    audit_keep_days: Annotated[int, msgspec.Meta(ge=365, le=36_500)] = 2557

    # -- the process
    shutdown_grace_s: Positive = 10.0
    log_level: str = "info"

    def __repr__(self) -> str:
        """Without the values: addresses hold passwords, and settings must be safe to print."""
        return "Settings(…)"

    def backoff(self, early_s: tuple[float, ...] = ()) -> Backoff:
        """The one back-off, with an account's early queries if it has any."""
        return Backoff(
            unit_s=self.backoff_unit_s,
            attempts_max=self.backoff_attempts_max,
            jitter=self.backoff_jitter,
            early_s=early_s,
        )

    def allowed_nets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`NOTIFY_ALLOW_NETS`: networks that are not public and may be notified nevertheless."""
        return _nets(self.notify_allow_nets)

    def shop_origins(self) -> frozenset[str]:
        """`PAGE_ORIGINS`: the origins of shops whose pages show the state of orders.

        Raises:
            ConfigurationError: one of them is no origin.
        """
        return _origins(self.page_origins)

    def reconcile_time(self) -> time | None:
        """`RECONCILE_AT`: the time of day, in the channel's time zone, after which yesterday's statement is fetched;
        None: never.

        Raises:
            ConfigurationError: it is neither a time nor "off".
        """
        if self.reconcile_at == "off":
            return None
        if _TIME_OF_DAY.fullmatch(self.reconcile_at) is None:
            raise ConfigurationError("RECONCILE_AT: set it to a time of day like 10:30, or to off")
        return time.fromisoformat(self.reconcile_at)

    def alert_keys(self) -> tuple[str, ...]:
        """`ALERT_SECRET`: every key signs, as those of `NOTIFY_SECRETS` do."""
        return tuple(text.strip() for text in self.alert_secret.split(",") if text.strip())

    def refund_alone_max(self, currency: str) -> int | None:
        """`OPS_REFUND_ALONE_MAX`: the most that one operator may give back of an order without a second one, in minor
        units; None: any amount. A currency that is not in it needs a second operator always.

        Raises:
            ConfigurationError: it is no list of amounts.
        """
        limits = _limits(self.ops_refund_alone_max)
        return limits.get(currency, 0) if limits else None

    def notify_keys(self) -> tuple[str, ...]:
        """`NOTIFY_SECRETS`: every key signs, so that the merchant can change keys without missing a notification."""
        return tuple(text.strip() for text in self.notify_secrets.split(",") if text.strip())


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of this environment; empty variables count as unset.

    Raises:
        ConfigurationError: names every variable that cannot be read, and its form.
    """
    given = {name: environ[name].strip() for name in _NAMES if environ.get(name, "").strip()}
    faults = [fault for name, text in given.items() if (fault := _fault_of(name, text))]
    if faults:
        raise ConfigurationError("; ".join(faults))
    return msgspec.convert(given, Settings, strict=False)


def find_misspelt(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that are nearly a setting which is not set, each with that setting: ("DATABSE_URL", "DATABASE_URL")."""
    unset = [name for name in _NAMES if not environ.get(name, "").strip()]
    others = sorted(name for name in environ if name not in _NAMES)
    return [(name, close[0]) for name in others if (close := get_close_matches(name.upper(), unset, 1, SIMILAR))]


def require(settings: Settings, *names: str) -> None:
    """Refuse to start when a setting that this process needs is empty.

    Raises:
        ConfigurationError: names every missing variable and what to set.
    """
    missing = [name for name in names if not getattr(settings, name)]
    if missing:
        raise ConfigurationError("; ".join(f"{name.upper()} is not set: {_HINTS[name]}" for name in missing))


_HINTS = {
    "database_url": "set it to the address of Postgres, postgres://user:password@host:5432/database",
    "redis_url": "set it to the address of Redis, rediss://:password@host:6379/0",
    "public_url": "set it to the address under which channels and buyers reach this service, https://pay.example.com",
    "nodrop_master_keys": "set it to the output of `python -m cli keys master`",
    "alert_secret": "set it to the output of `python -m cli keys notify`",
    "notify_secrets": "set it to the output of `python -m cli keys notify`",
}


def _check_public_url(url: str) -> None:
    """Check that channels and buyers could call it: no callback would arrive at an address without `https://`."""
    if url and _PUBLIC_URL.fullmatch(url) is None:
        raise ConfigurationError(f"PUBLIC_URL: {_HINTS['public_url']}")


_NAMES = Settings.__struct_encode_fields__


def _fault_of(name: str, text: str) -> str | None:
    """The fault in one variable: `PORT: expected `int``; None: nothing."""
    try:
        settings = msgspec.convert({name: text}, Settings, strict=False)
        settings.allowed_nets()
        settings.reconcile_time()
        settings.shop_origins()
        settings.refund_alone_max("")
        _check_public_url(settings.public_url)
        check_look(settings.shop_name, settings.shop_color, settings.shop_contact)
    except msgspec.ValidationError as error:  # `Expected `int` - at `$.PORT``
        reason = str(error).partition(" - at `$.")[0]
        return f"{name}: {reason[0].lower()}{reason[1:]}"
    except ConfigurationError as error:
        return error.detail
    except ValueError as error:
        return f"{name}: {error}; set networks like 127.0.0.0/8,10.1.0.0/16"
    return None
