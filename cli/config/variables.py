"""Checks of a configuration that connect to nothing: variables that are wrong, missing or unusual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cli.findings import Finding, Level
from core.errors import ConfigurationError
from core.settings import Settings, find_misspelt, read_settings, require
from storage.postgres.address import read_address
from storage.sealing import Sealer
from storage.tls import TlsMode, TlsName, is_loopback

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
UNIT_S = 60.0
CONFIRM_S_MAX = 4.0
"""WeChat Pay sends a callback again when it has not been answered within 5 seconds."""


def check_settings(environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """Every finding, and the settings without the variables that cannot be read, so that the others can be checked."""
    readable, findings = {}, []
    for name in Settings.__struct_encode_fields__:
        if name in environ:
            try:
                read_settings({name: environ[name]})
                readable[name] = environ[name]
            except ConfigurationError as error:
                findings.append(Finding(name, Level.ERROR, _without(name, error)))
    for name, wanted in find_misspelt(environ):
        findings.append(Finding(name, Level.WARNING, f"no setting has this name; {wanted} is one"))
    settings = read_settings(readable)
    findings += [_check(name, settings) for name in _READERS if name in readable or name not in environ]
    return settings, [*findings, *_unusual(settings)]


def first_key_id(settings: Settings) -> str:
    """The id of the master key that seals."""
    return settings.nodrop_master_keys.split(",", 1)[0].partition(":")[0].strip()


def _check(name: str, settings: Settings) -> Finding:
    try:
        if name not in OPTIONAL:
            require(settings, name.lower())
        return Finding(name, Level.OK, _READERS[name](settings))
    except ConfigurationError as error:
        return Finding(name, Level.ERROR, _without(name, error))


def _without(what: str, error: ConfigurationError) -> str:
    """The message without the variable that it begins with, which is in the column before."""
    return error.detail.removeprefix(what).removeprefix(":").strip()


# -- the variables of every deployment, each read as a process reads it ------------------------------------------------


def _database(settings: Settings) -> str:
    address = read_address(settings.database_url, settings.database_tls)
    return f"{address.host}:{address.port}/{address.database}, TLS {address.tls.name}"


def _direct_database(settings: Settings) -> str:
    if not settings.direct_database_url:
        return "not set: migrations use DATABASE_URL"
    address = read_address(settings.direct_database_url, settings.database_tls, variable="DIRECT_DATABASE_URL")
    return f"{address.host}:{address.port}/{address.database}, for migrations"


def _redis(settings: Settings) -> str:
    from storage.redis.address import redis_address

    address = redis_address(settings)
    where = f"{len(address.sentinels)} sentinels" if address.sentinels else f"{address.host}:{address.port}"
    return f"{where}/{address.database}, TLS {address.tls.name}"


def _public(settings: Settings) -> str:
    return settings.public_url


def _master_keys(settings: Settings) -> str:
    Sealer.from_setting(settings.nodrop_master_keys)
    others = settings.nodrop_master_keys.count(",")
    return f"{first_key_id(settings)} seals" + (f", {others} older still open" if others else "")


def _proxy(settings: Settings) -> str:
    from channels.egress_proxy import egress_proxy

    proxy = egress_proxy(settings)
    return "not set: hosts are reached directly" if proxy is None else proxy.address


def _notify(settings: Settings) -> str:
    from flows.notify import Notifier

    Notifier(settings)
    return f"{len(settings.notify_keys())} sign every notification"


def _alerts(settings: Settings) -> str:
    from flows.alert_messages import check_alert_url

    if not settings.alert_url:
        return "not set: alerts go to the log alone"
    require(settings, "alert_secret")
    check_alert_url(settings)
    return "alerts are sent there, signed"


def _alert_secret(settings: Settings) -> str:
    from flows.signers import Signers

    Signers.of_alerts(settings)
    return f"{len(settings.alert_keys())} sign every alert" if settings.alert_keys() else "not set"


_READERS: Mapping[str, Callable[[Settings], str]] = {
    "DATABASE_URL": _database,
    "DIRECT_DATABASE_URL": _direct_database,
    "REDIS_URL": _redis,
    "PUBLIC_URL": _public,
    "NODROP_MASTER_KEYS": _master_keys,
    "NOTIFY_SECRETS": _notify,
    "EGRESS_PROXY": _proxy,
    "ALERT_URL": _alerts,
    "ALERT_SECRET": _alert_secret,
}
OPTIONAL = ("DIRECT_DATABASE_URL", "EGRESS_PROXY", "ALERT_URL", "ALERT_SECRET")


# -- values that are rarely intended ---------------------------------------------------------------------------------


def _unusual(settings: Settings) -> Iterator[Finding]:
    warnings = (
        ("LEASE_S", settings.lease_s <= settings.channel_timeout_s, _LEASE),
        ("CALLBACK_CONFIRM_S", settings.callback_confirm_s > CONFIRM_S_MAX, _CONFIRM),
        ("BACKOFF_UNIT_S", settings.backoff_unit_s != UNIT_S, _UNIT),
        ("NOTIFY_ALLOW_NETS", bool(settings.notify_allow_nets), _NETS),
        ("LOG_LEVEL", settings.log_level.lower() not in LOG_LEVELS, f"set it to one of {', '.join(LOG_LEVELS)}"),
        ("PUBLIC_URL", _is_plain(settings.public_url), _PLAIN),
        ("OPS", settings.ops and _is_plain(settings.public_url), _COOKIE),
        ("OPS_PORT", bool(settings.ops_port) and not settings.ops, _NO_CONSOLE),
        ("TRUSTED_PROXY_HOPS", settings.public_url.startswith("https:") and not settings.trusted_proxy_hops, _HOPS),
        ("DATABASE_TLS", _is_weak(settings, _database_tls), _WEAK),
        ("REDIS_TLS", _is_weak(settings, _redis_tls), _WEAK),
    )
    return (Finding(name, Level.WARNING, text) for name, applies, text in warnings if applies)


_LEASE = "it should be longer than CHANNEL_TIMEOUT_S, or two processes may ask about one payment at a time"
_CONFIRM = "channels wait 5 s for an answer to a callback; leave some of that for the network"
_UNIT = "a minute of the back-off is not 60 s: right for demos and tests alone"
_NETS = "notifications may go to these networks, and over http://: right for demos and private networks alone"
_PLAIN = "http:// outside this machine: buyers' pages and callbacks can be read and changed on the way"
_COOKIE = "the console's cookie needs https: nobody can sign in over http:// from another machine"
_NO_CONSOLE = "OPS is not on, so nothing listens there"
_HOPS = "something in front of this service ends TLS, and none is trusted: all buyers seem to come from one address"
_WEAK = "the server's certificate is not checked: right inside a private network alone"


def _is_plain(url: str) -> bool:
    return url.startswith("http:") and not is_loopback(url.removeprefix("http://").partition("/")[0].partition(":")[0])


def _is_weak(settings: Settings, read: Callable[[Settings], tuple[str, TlsMode]]) -> bool:
    try:
        host, tls = read(settings)
    except ConfigurationError:
        return False
    return tls.name in (TlsName.ENCRYPT_ONLY, TlsName.PRIVATE) and not is_loopback(host)


def _database_tls(settings: Settings) -> tuple[str, TlsMode]:
    address = read_address(settings.database_url, settings.database_tls)
    return address.host, address.tls


def _redis_tls(settings: Settings) -> tuple[str, TlsMode]:
    from storage.redis.address import redis_address

    address = redis_address(settings)
    return address.sentinels[0][0] if address.sentinels else address.host, address.tls
