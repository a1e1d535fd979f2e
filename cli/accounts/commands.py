"""`nodrop accounts`: the merchant's accounts at payment channels. What is printed never holds a credential."""

from __future__ import annotations

import asyncio

import click

from cli.acts import ask_reason, by_option, dry_run_option, reason_option, show_preview
from cli.audit import this_act
from cli.environment import current_settings, log_to_stderr, with_database, with_resources
from cli.findings import has_error
from cli.output import Stop, json_option, print_json, print_table, warn
from core.account import AccountConfig
from core.act_names import ActName
from core.order import ACCOUNT_NAME
from storage.postgres.accounts import AccountRow, find_used_world, list_accounts, put_account, reseal_accounts
from storage.postgres.callback_bodies import Resealed, reseal_callbacks
from storage.postgres.database import Database
from storage.postgres.notify_secrets import reseal_secrets
from storage.postgres.operators import reseal_operators
from storage.postgres.refused_callbacks import drop_refused_bodies
from storage.sealing import Sealer


@click.group(epilog="Example: nodrop accounts add main --from main.toml")
def accounts() -> None:
    """Accounts at payment channels."""


@accounts.command(epilog="Example: nodrop accounts add main --from main.toml")
@click.argument("name")
@click.option("--from", "source", required=True, metavar="FILE", help="The account in TOML; - reads standard input.")
@click.option("--replace", is_flag=True, help="Change an account that is there already.")
@json_option
def add(name: str, source: str, *, replace: bool, as_json: bool) -> None:
    """Add an account.

    The form of its credentials is checked, and they are stored sealed under the first of NODROP_MASTER_KEYS. FILE holds
    secrets: keep it from others, and delete it afterwards. docs/channels.md shows one.
    """
    account = _read(name, source)
    settings = current_settings("database_url", "nodrop_master_keys")
    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    is_new, warnings = with_database(
        lambda db: _put(db, sealer, account, replace=replace),
        act=this_act(ActName.ACCOUNT_ADD, name, channel=account.channel, replace=replace),
    )
    for warning in warnings:
        warn(warning)
    callback_url = f"{settings.public_url.rstrip('/')}/callbacks/{name}"
    if as_json:
        print_json({"name": name, "channel": account.channel, "is_new": is_new, "callback_url": callback_url})
        return
    click.echo(f"{'added' if is_new else 'replaced'} {name} ({account.channel}); in force within ten seconds")
    click.echo(f"its callbacks arrive at {callback_url}" + ("" if settings.public_url else ", below PUBLIC_URL"))


@accounts.command(epilog="Example: nodrop accounts rotate main --from main.toml")
@click.argument("name")
@click.option("--from", "source", required=True, metavar="FILE", help="The account in TOML; - reads standard input.")
@json_option
def rotate(name: str, source: str, *, as_json: bool) -> None:
    """Replace the credentials of an account.

    It stays at the same channel and the same merchant, and its settings stay as they are. Where several keys may be
    valid at a time, keep the old one beside the new one until the channel has changed too.
    """
    from cli.accounts.rotation import rotate_account

    settings = current_settings("database_url", "nodrop_master_keys")
    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    not_kept = with_database(
        lambda db: rotate_account(db, sealer, name, source), act=this_act(ActName.ACCOUNT_ROTATE, name)
    )
    for key in not_kept:
        warn(f"{key}: none of the old ones is kept, so what is still signed with them is refused from now on")
    if as_json:
        print_json({"name": name, "not_kept": not_kept})
        return
    click.echo(f"rotated the credentials of {name}; in force within ten seconds")


@accounts.command(epilog="Example: nodrop accounts check main --online")
@click.argument("name", required=False)
@click.option("--from", "source", metavar="FILE", help="An account in TOML that is not added yet; - reads from stdin.")
@click.option("--online", "is_online", is_flag=True, help="Ask the channel about a payment that does not exist.")
@json_option
def check(name: str | None, source: str | None, *, is_online: bool, as_json: bool) -> None:
    """Check accounts, key by key.

    Without NAME and FILE all accounts are checked. Nothing is stored, and without --online no channel is called. Exit
    code 2 when something is wrong or does not work, 0 when there are warnings at most.
    """
    from cli.accounts.check import check_file, check_stored

    log_to_stderr()
    settings = current_settings()
    if source is not None:
        findings = asyncio.run(check_file(name or "NAME", source, settings.public_url, is_online=is_online))
    else:
        current_settings("database_url", "nodrop_master_keys")
        findings = with_database(lambda db: check_stored(db, settings, name, is_online=is_online))
    if as_json:
        print_json([{"account": account, **finding._asdict()} for account, finding in findings])
    elif len({account for account, _ in findings}) > 1:
        rows = [(account, *finding) for account, finding in findings]
        print_table(("account", "what", "state", "says"), rows, empty="")
    else:
        empty = "no accounts; `nodrop accounts add` adds one"
        print_table(("what", "state", "says"), [finding for _, finding in findings], empty=empty)
    raise SystemExit(2 if has_error(finding for _, finding in findings) else 0)


@accounts.command("list", epilog="Example: nodrop accounts list --json")
@json_option
def list_(*, as_json: bool) -> None:
    """List accounts, without their credentials."""
    rows = with_database(list_accounts)
    if as_json:
        print_json(rows)
        return
    columns = ("name", "channel", "enabled", "created", "updated")
    table = [(row.name, row.channel, row.enabled, row.created_at, row.updated_at) for row in rows]
    print_table(columns, table, empty="no accounts; `nodrop accounts add` adds one")


@accounts.command(epilog="Example: nodrop accounts show main")
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show an account, without a secret.

    Its settings, which credentials it has, certificates, breakers, calls of this second, and when it was last heard of.
    """
    from cli.accounts.show import print_account
    from flows.account_facts import read_account

    facts = with_resources(lambda resources: read_account(resources, name))
    if as_json:
        print_json(facts)
    else:
        print_account(facts)


@accounts.command(epilog='Example: nodrop accounts enable main --reason "the new keys work"')
@click.argument("name")
@by_option
@reason_option
@dry_run_option
@json_option
def enable(name: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Let payments be started at an account again."""
    if _switch(name, by, reason, enabled=True, dry_run=dry_run, as_json=as_json):
        click.echo(f"enabled {name}; in force within ten seconds")


@accounts.command(epilog='Example: nodrop accounts disable main --reason "the contract ends"')
@click.argument("name")
@by_option
@reason_option
@dry_run_option
@json_option
def disable(name: str, *, by: str, reason: str, dry_run: bool, as_json: bool) -> None:
    """Let no payment be started at an account any more.

    Its payments are queried until they are definite, and its callbacks are accepted.
    """
    if _switch(name, by, reason, enabled=False, dry_run=dry_run, as_json=as_json):
        click.echo(f"disabled {name}; in force within ten seconds. Payments under way continue to their end")


@accounts.command(epilog="Example: nodrop accounts reseal")
@json_option
def reseal(*, as_json: bool) -> None:
    """Seal all secrets and raw callbacks under the first of NODROP_MASTER_KEYS.

    Accounts, notification secrets of single hosts, and secrets of operators' codes. Afterwards the older keys are not
    needed any more. Callbacks that an earlier version stored in the clear are sealed too. docs/operations.md shows how
    to change keys step by step. Exit code 1: a callback does not open.
    """
    settings = current_settings("database_url", "nodrop_master_keys")
    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    names, hosts, people, bodies = with_database(lambda db: _reseal(db, sealer), act=this_act(ActName.SECRETS_RESEAL))
    if as_json:
        counts = {"callbacks": bodies.sealed, "unopened_callbacks": bodies.unopened}
        print_json({"resealed": names, "notify_secrets": hosts, "operators": people, **counts})
    else:
        click.echo(f"resealed {', '.join(names)}" if names else "no accounts, nothing to do")
        if hosts:
            click.echo(f"resealed the notification secrets of {', '.join(hosts)}")
        if people:
            click.echo(f"resealed the codes of {', '.join(people)}")
        click.echo(f"resealed {bodies.sealed} callbacks")
    if bodies.unopened:
        raise Stop(f"{bodies.unopened} callbacks were sealed under a key that NODROP_MASTER_KEYS lacks: add it first")


async def _reseal(db: Database, sealer: Sealer) -> tuple[list[str], list[str], list[str], Resealed]:
    """Names of the accounts, hosts, operators, and counts of the callbacks. Headers that no channel reads go."""
    from channels.adapters import CALLBACK_HEADERS

    names, hosts = await reseal_accounts(db, sealer), await reseal_secrets(db, sealer)
    people = await reseal_operators(db, sealer)
    await drop_refused_bodies(db, sealer)
    return names, hosts, people, await reseal_callbacks(db, sealer, CALLBACK_HEADERS)


def _read(name: str, source: str) -> AccountConfig:
    """The account in the file, complete and of the form that its channel wants; no channel is called."""
    from cli.accounts.account_file import content_of, is_plain_elsewhere, open_once, read_account

    if ACCOUNT_NAME.fullmatch(name) is None:
        shape = "a-z, 0-9 and -, beginning with a letter, 40 characters at most"
        raise click.BadParameter(shape, param_hint="NAME")
    account = read_account(name, source, content_of(source))
    if is_plain_elsewhere(account):
        warn("base_url is plain http:// to another machine: others can read and change it on the way")

    asyncio.run(open_once(account))
    return account


async def _put(db: Database, sealer: Sealer, account: AccountConfig, *, replace: bool) -> tuple[bool, list[str]]:
    """Store the account. Returns whether it is new, and what to warn of."""
    from cli.accounts.siblings import find_siblings, sibling_warning

    existing = next((row for row in await list_accounts(db) if row.name == account.name), None)
    if existing is not None:
        _check_replaceable(existing, account, replace=replace)
        _check_world(account, await find_used_world(db, account.name))
    is_new = await put_account(db, sealer, account)
    siblings = await find_siblings(db, sealer, account)
    return is_new, [sibling_warning(siblings)] if siblings else []


def _check_replaceable(existing: AccountRow, account: AccountConfig, *, replace: bool) -> None:
    """Check that nothing is lost: overwritten credentials are gone, and payments are queried where they were started.

    Raises:
        Stop: says what to do instead.
    """
    if not replace:
        raise Stop(f"there is an account {account.name} already: use --replace to change it, or another name")
    if existing.channel != account.channel:
        raise Stop(
            f"{account.name} is an account at {existing.channel}, and its payments are there: "
            f"add the one at {account.channel} under another name"
        )


def _check_world(account: AccountConfig, used: str | None) -> None:
    """Check that payments of test money do not come to an account of real money, nor the reverse. `used`: the world in
    which the account has payments.

    Raises:
        Stop: says what to do instead.
    """
    kind = "live" if account.live else "test"
    if used is None or kind in used.split():
        return
    raise Stop(
        f"{account.name} has payments in the world {used!r}, where they are queried and refunded: "
        f"add the {kind} account under another name"
    )


def _switch(name: str, by: str, reason: str, *, enabled: bool, dry_run: bool, as_json: bool) -> bool:
    """Switch it, or show what that would do. True: a person is to read that it was done."""
    from flows.account_switch import preview_switch, switch_account

    if dry_run:
        show_preview(with_database(lambda db: preview_switch(db, name, enabled=enabled)), as_json=as_json)
        return False
    action = ActName.ACCOUNT_ENABLE if enabled else ActName.ACCOUNT_DISABLE
    act = this_act(action, name, by=by, reason=ask_reason(reason))
    with_database(lambda db: switch_account(db, name, enabled=enabled), act=act)
    if as_json:
        print_json({"name": name, "enabled": enabled})
    return not as_json
