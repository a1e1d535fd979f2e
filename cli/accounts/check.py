"""Checks of an account: keys that are missing or malformed, certificates that expire, and a query to the channel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from channels.adapters import ADAPTERS, open_channel
from channels.base import ListsSubscribed
from channels.credentials import EXPIRES_SOON_DAYS, expiries, key_problems
from channels.egress_proxy import egress_proxy
from channels.hosts import WITHOUT_HOST, host_problem, is_own_host
from channels.kit.signed_message import SignatureCheck, recorded_checks
from channels.transport import Transport
from cli.accounts.account_file import Draft, content_of, draft_account, is_plain_elsewhere
from cli.accounts.siblings import find_siblings, sibling_warning
from cli.environment import current_settings
from cli.findings import Finding, Level, has_error
from cli.output import Stop
from core.account import AccountConfig
from core.errors import ChannelError, ChannelRefused, ChannelUnavailable, ConfigurationError
from core.evidence import Missing, kind_of
from core.order import Payment, PaymentStatus
from core.settings import Settings
from flows.place import new_number
from storage.postgres.accounts import open_account, sealed_accounts
from storage.postgres.database import Database
from storage.sealing import Sealer

ONLINE_TIMEOUT_S = 10.0


AccountFindings = list[tuple[str, Finding]]
"""Findings, each with the name of its account."""


async def check_file(name: str, source: str, public_url: str, *, is_online: bool) -> AccountFindings:
    """Check an account that is not added yet. With a file that cannot be read nothing else is checked."""
    draft = draft_account(name, source, content_of(source))
    return [(name, finding) for finding in await _check_draft(name, draft, public_url, is_online=is_online)]


async def check_stored(db: Database, settings: Settings, name: str | None, *, is_online: bool) -> AccountFindings:
    """Check one account, or all. One that does not open is a finding, and the others are checked.

    Raises:
        Stop: there is none with this name.
    """
    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    rows = [row for row in await sealed_accounts(db) if name in (None, row.name)]
    if name is not None and not rows:
        raise Stop(f"there is no account {name}; `nodrop accounts list` shows them")
    findings: AccountFindings = []
    for row in rows:
        try:
            account = open_account(row, sealer)
        except ConfigurationError as error:
            findings.append((row.name, Finding("account", Level.ERROR, error.detail)))
            continue
        checked = await check_account(account, settings.public_url, is_online=is_online)
        siblings = await find_siblings(db, sealer, account) if account.channel in ADAPTERS else []
        if siblings:
            checked.append(Finding("merchant", Level.WARNING, sibling_warning(siblings)))
        findings += [(row.name, finding) for finding in checked]
    return findings


async def _check_draft(name: str, draft: Draft, public_url: str, *, is_online: bool) -> list[Finding]:
    findings = [Finding(key or draft.source, Level.ERROR, says) for key, says in draft.problems]
    if draft.account is not None:
        return findings + await check_account(draft.account, public_url, is_online=is_online)
    channel, credentials = draft.table.get("channel"), draft.table.get("credentials")
    if channel in ADAPTERS and isinstance(credentials, dict):
        findings += _keys(str(channel), credentials, reported={finding.what for finding in findings})
    return [*findings, _callback_address(name, public_url)]


async def check_account(account: AccountConfig, public_url: str, *, is_online: bool) -> list[Finding]:
    """Check an account that has the form of one."""
    if account.channel not in ADAPTERS:
        return [Finding("channel", Level.ERROR, f"{account.channel} is none of {', '.join(ADAPTERS)}")]
    findings = _keys(account.channel, account.credentials, reported=set())
    async with Transport(timeout_s=ONLINE_TIMEOUT_S, proxy=egress_proxy(current_settings())) as transport:
        try:
            open_channel(account, transport)
        except ConfigurationError as error:
            findings += _not_opened(account, error, findings)
        else:
            if not findings:
                findings.append(Finding("credentials", Level.OK, f"of the form that {account.channel} wants"))
            findings.append(_world(account))
            findings.append(_exclusive(account))
        findings += [*_expiring(account), _callback_address(account.name, public_url)]
        if is_online and not has_error(findings):
            findings.append(await _query_unknown(account, transport))
            findings += await _subscribed(account, transport, public_url)
    return findings


def _keys(channel: str, credentials: dict[str, object], *, reported: set[str]) -> list[Finding]:
    """A finding for each key, except those whose file cannot be read, which are `reported`."""
    from_files = {what.removesuffix("s").removesuffix("_file") for what in reported}
    problems = [(f"credentials.{key}", says) for key, says in key_problems(channel, credentials)]
    return [Finding(what, Level.ERROR, says) for what, says in problems if what not in from_files]


def _not_opened(account: AccountConfig, error: ConfigurationError, findings: list[Finding]) -> list[Finding]:
    """The fault of the adapter, unless there is a finding about the same key."""
    says = error.detail.removeprefix(f"account {account.name}: ")
    keys = (finding.what.removeprefix("credentials.").partition("[")[0].partition(".")[0] for finding in findings)
    if any(key in says for key in keys):
        return []
    if findings and "`$" in says:  # the struct as a whole: each of its keys has been checked
        return []
    what, _, rest = says.partition(": ")
    named = rest and " " not in what
    return [Finding(what if named else "account", Level.ERROR, rest if named else says)]


def _world(account: AccountConfig) -> Finding:
    """The world that the account is in. One that could not be added today is a warning: it goes on."""
    own = f"{account.channel}'s own host"
    where = f"at {account.base_url or own}" + (f", {own}" if account.base_url and is_own_host(account) else "")
    problem = host_problem(account)
    if problem is not None:
        return Finding(problem.key, Level.WARNING, problem.says)
    if is_plain_elsewhere(account):
        return Finding("base_url", Level.WARNING, "plain http:// to another machine: others can read and change it")
    if account.channel not in WITHOUT_HOST and not is_own_host(account):
        where += f", which is not {own}"
    return Finding("live", Level.OK, f"{'live: moves real money' if account.live else 'test: no real money'}, {where}")


def _exclusive(account: AccountConfig) -> Finding:
    if account.exclusive:
        return Finding("exclusive", Level.OK, "only nodrop sells here: unknown money is a case")
    return Finding("exclusive", Level.OK, "others may sell here: unknown money with numbers of theirs is dropped")


def _expiring(account: AccountConfig) -> list[Finding]:
    findings = []
    for key, until in expiries(account.channel, account.credentials):
        left = until - datetime.now(UTC)
        day = until.date().isoformat()
        if left <= timedelta():
            findings.append(Finding(f"credentials.{key}", Level.ERROR, f"expired on {day}: `nodrop accounts rotate`"))
        elif left <= timedelta(days=EXPIRES_SOON_DAYS):
            says = f"expires on {day}, in {left.days} days: `nodrop accounts rotate`"
            findings.append(Finding(f"credentials.{key}", Level.WARNING, says))
        else:
            findings.append(Finding(f"credentials.{key}", Level.OK, f"valid until {day}"))
    return findings


def _callback_address(name: str, public_url: str) -> Finding:
    address = _callback_url(name, public_url)
    return Finding("callback address", Level.OK, f"{address}; enter it where the channel wants it registered")


def _callback_url(name: str, public_url: str) -> str:
    return f"{public_url.rstrip('/') or 'PUBLIC_URL'}/callbacks/{name}"


# -- online ------------------------------------------------------------------------------------------------------------


async def _query_unknown(account: AccountConfig, transport: Transport) -> Finding:
    """One query for a payment that does not exist: harmless, and the answer *missing* proves that the keys work."""
    channel, described = open_channel(account, transport), ADAPTERS[account.channel].description
    number = new_number(datetime.now(UTC))
    with recorded_checks() as checks:
        try:
            await channel.keep_current()
            evidence = await channel.query_payment(_unknown_payment(account, number, described.unknown_reference))
        except ChannelUnavailable as error:
            return Finding("online", Level.ERROR, f"no answer ({error.detail}): base_url, or the network")
        except ChannelError as error:
            return Finding("online", Level.ERROR, _blame(account, error, checks))
    if not isinstance(evidence, Missing):
        says = f"{kind_of(evidence)} of {number}, a payment that was never created: another service"
        return Finding("online", Level.ERROR, says)
    return Finding("online", Level.OK, _proved(account, checks))


async def _subscribed(account: AccountConfig, transport: Transport, public_url: str) -> list[Finding]:
    """Events that the channel does not send to us, where it shows which it sends."""
    channel = open_channel(account, transport)
    if not isinstance(channel, ListsSubscribed):
        return []
    address = _callback_url(account.name, public_url)
    try:
        subscribed = await channel.fetch_subscribed(address)
    except ChannelError as error:
        says = f"the channel does not show them ({error.detail or type(error).__name__})"
        return [Finding("events", Level.WARNING, says)]
    if subscribed is None:
        return [Finding("events", Level.WARNING, f"no webhook of the channel calls {address}")]
    missing = [] if "*" in subscribed else [name for name in channel.events if name not in subscribed]
    if missing:
        return [Finding("events", Level.WARNING, f"not subscribed: {', '.join(missing)}")]
    return [Finding("events", Level.OK, f"all {len(channel.events)} are sent to {address}")]


def _unknown_payment(account: AccountConfig, number: str, reference: str | None) -> Payment:
    now = datetime.now(UTC)
    return Payment(
        channel_account=account.name,
        out_trade_no=number,
        order_no="none",
        attempt_no=1,
        amount=1,
        currency="CNY",
        status=PaymentStatus.OPEN,
        payable_until=now,
        created_at=now,
        channel_reference=reference,
    )


def _blame(account: AccountConfig, error: ChannelError, checks: list[SignatureCheck]) -> str:
    """The channel's keys, if its answer did not verify; ours, if it refused to answer."""
    described, code = ADAPTERS[account.channel].description, error.detail or type(error).__name__
    if isinstance(error, ChannelRefused):
        code = error.code
    wrong = next((check for check in checks if not check.is_good), None)
    if wrong is not None and not any(check.is_good for check in checks):
        return f"the answer does not verify with {_named(account, described.response_keys)} (it names key {wrong.key})"
    return f"the channel does not take what we send ({code}): look at {_named(account, described.request_keys)}"


def _proved(account: AccountConfig, checks: list[SignatureCheck]) -> str:
    described = ADAPTERS[account.channel].description
    says = f"the channel knows no such payment, as it should: {_named(account, described.request_keys)} work"
    not_used = described.callback_keys
    if any(check.is_good for check in checks):
        says += f", and {_named(account, described.response_keys)} verified its answer"
    else:
        not_used = (*described.response_keys, *not_used)
    unproved = _named(account, not_used)
    return says + (f". Proved by the first callback only: {unproved}" if unproved else "")


def _named(account: AccountConfig, keys: tuple[str, ...]) -> str:
    return ", ".join(key for key in keys if account.credentials.get(key))
