"""`nodrop explain`: the proof in a callback or an answer. The service's own code reads it; nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from cli.environment import current_settings, log_to_stderr, with_database
from cli.output import Wrong, json_option, print_json

if TYPE_CHECKING:  # imported when they are needed: `--help` connects to nothing and reads nothing
    from channels.base import Channel
    from channels.transport import Response
    from core.account import AccountConfig
    from core.evidence import Evidence
    from core.order import Payment
    from flows.explanation import Explanation

REJECTED, MISMATCH = 3, 4
"""Exit codes: 0 is genuine and of the order that it should be of."""

CHANNEL_TIMEOUT_S = 10.0

_F = TypeVar("_F", bound=Callable[..., None])


@click.group(epilog="Example: nodrop explain callback --account main --headers headers.json --body body.bin")
def explain() -> None:
    """Show what a callback or an answer proves, check by check."""


def _common(command: _F) -> _F:
    """The options of both commands."""
    for option in (
        click.option("--at", metavar="TIME", help="When it was received: RFC 3339 or Unix seconds. Default: now."),
        click.option("--order", "order_file", metavar="FILE", help="Its order, in JSON. Default: the database."),
        click.option("--accounts", "accounts_file", metavar="FILE", help="Accounts in TOML, instead of the database."),
        click.option("--body", "body_file", required=True, metavar="FILE", help="The raw body, byte for byte."),
        click.option("--account", "name", required=True, metavar="NAME", help="Whose it is."),
    ):
        command = option(command)
    return command


@explain.command(epilog="Example: nodrop explain callback --account main --headers headers.json --body body.bin")
@_common
@click.option("--headers", "headers_file", required=True, metavar="FILE", help="The headers, a JSON object of texts.")
@json_option
def callback(
    name: str,
    headers_file: str,
    body_file: str,
    accounts_file: str | None,
    order_file: str | None,
    at: str | None,
    *,
    as_json: bool,
) -> None:
    """Verify a callback and say what it proves.

    Shows every signature that was checked, and the exact string; secrets are masked. Exit code 0: genuine, and of the
    order. 3: rejected. 4: genuine, and not of the order. FILE may be - for standard input.
    """
    from cli.explain import inputs
    from flows.explanation import compare, explain_callback, named, with_note
    from flows.explanation_notes import Note

    inputs.only_one_stdin(headers_file, body_file, accounts_file, order_file)
    received_at = None if at is None else inputs.read_time(at)
    headers, body = inputs.read_headers(headers_file), inputs.read_body(body_file)
    account = _account(name, accounts_file)
    expected = _expected(account, order_file)
    now = datetime.now(UTC)
    explanation = _with_channel(account, lambda channel: explain_callback(channel, headers, body, received_at, now))
    if expected is None and accounts_file is None and explanation.evidence is not None:
        expected = _named_in_database(account, explanation.evidence)
        explanation = named(explanation, expected) if expected else with_note(explanation, Note("unknown_number"))
    _show(compare(explanation, expected, name), account, expected, headers, as_json=as_json)


@explain.command(epilog="Example: nodrop explain answer --account main --out-trade-no 019aaf3c1a2b --body answer.json")
@_common
@click.option("--out-trade-no", "number", required=True, metavar="NO", help="The payment that was queried.")
@click.option("--headers", "headers_file", metavar="FILE", help="The headers, a JSON object of texts.")
@click.option("--status", type=click.IntRange(100, 599), help="The HTTP status. Default: the body's own, or 200.")
@json_option
def answer(
    name: str,
    number: str,
    body_file: str,
    headers_file: str | None,
    status: int | None,
    accounts_file: str | None,
    order_file: str | None,
    at: str | None,
    *,
    as_json: bool,
) -> None:
    """Verify the answer to a query and say what it proves.

    As `nodrop explain callback`, for what a channel answered to the query about one payment.
    """
    from cli.explain import inputs
    from flows.explanation import compare, explain_answer, with_note, without_amount
    from flows.explanation_notes import Note

    inputs.only_one_stdin(headers_file, body_file, accounts_file, order_file)
    received_at = None if at is None else inputs.read_time(at)
    headers = {} if headers_file is None else inputs.read_headers(headers_file)
    body = inputs.read_body(body_file)
    account = _account(name, accounts_file)
    expected = _expected(account, order_file)
    if expected is not None and expected.out_trade_no != number:
        raise Wrong(f"{order_file}: it is of {expected.out_trade_no}, and --out-trade-no says another number")
    if expected is None and accounts_file is None:
        expected = _in_database(account, number)
    now = datetime.now(UTC)
    payment = expected or inputs.payment_of(name, number, now)

    async def read(channel: Channel) -> Explanation:
        return explain_answer(channel, payment, _response(channel, headers, body, status), received_at, now)

    explanation = _with_channel(account, read)
    if expected is None and accounts_file is None:
        explanation = with_note(explanation, Note("unknown_number"))
    compared = compare(explanation, expected or without_amount(payment, explanation), name)
    _show(compared, account, expected, headers, as_json=as_json)


def _account(name: str, source: str | None) -> AccountConfig:
    """The account in the file, or in the database."""
    from cli.explain.inputs import account_in_file
    from core.order import ACCOUNT_NAME

    if ACCOUNT_NAME.fullmatch(name) is None:
        raise Wrong("--account: a-z, 0-9 and -, beginning with a letter, 40 characters at most")
    if source is not None:
        return account_in_file(name, source)
    from cli.output import Stop
    from storage.postgres.accounts import open_account, sealed_accounts
    from storage.sealing import Sealer

    settings = current_settings("database_url", "nodrop_master_keys")
    sealer = Sealer.from_setting(settings.nodrop_master_keys)
    row = next((row for row in with_database(sealed_accounts) if row.name == name), None)
    if row is None:
        raise Stop(f"there is no account {name}; `nodrop accounts list` shows them")
    return open_account(row, sealer)


def _expected(account: AccountConfig, source: str | None) -> Payment | None:
    from cli.explain.inputs import read_order

    return None if source is None else read_order(source, account.name, datetime.now(UTC))


def _named_in_database(account: AccountConfig, evidence: Evidence) -> Payment | None:
    """The payment that the service finds by the ids in the evidence."""
    from storage.postgres.orders import find_named_payment

    found = with_database(lambda db: find_named_payment(db, account.name, evidence))
    return None if found is None else found[1]


def _in_database(account: AccountConfig, number: str) -> Payment | None:
    from core.order import PaymentKey
    from storage.postgres.orders import find_state_by_payment

    key = PaymentKey(account.name, number)
    state = with_database(lambda db: find_state_by_payment(db, key))
    return None if state is None else state.payment(key)


def _response(channel: Channel, headers: dict[str, str], body: bytes, status: int | None) -> Response:
    """The answer; its status, if it was not kept, is what the channel gives such a body."""
    from channels.base import ReadsResponses
    from channels.transport import Response

    if status is None:
        status = channel.status_of(body) if isinstance(channel, ReadsResponses) else 200
    return Response(status=status, headers=headers, body=body)


def _with_channel(account: AccountConfig, work: Callable[[Channel], Awaitable[Explanation]]) -> Explanation:
    """The result of `work` with the account's adapter, opened as the service opens it."""
    from channels.adapters import open_channel
    from channels.egress_proxy import egress_proxy
    from channels.transport import Transport

    async def run() -> Explanation:
        proxy = egress_proxy(current_settings())
        async with Transport(timeout_s=CHANNEL_TIMEOUT_S, proxy=proxy) as transport:
            return await work(open_channel(account, transport))

    log_to_stderr()
    return asyncio.run(run())


def _show(
    explanation: Explanation,
    account: AccountConfig,
    expected: Payment | None,
    headers: dict[str, str],
    *,
    as_json: bool,
) -> None:
    from channels.credentials import secrets_of
    from cli.explain.text import print_explanation
    from flows.explanation_view import Mask
    from flows.explanation_view import as_json as object_of

    mask = Mask(secrets_of(account.channel, account.credentials))
    if as_json:
        order_no = expected.order_no or None if expected is not None else None
        context = {"account": account.name, "channel": account.channel, "order_no": order_no}
        print_json(object_of(explanation, mask, context))
    else:
        print_explanation(explanation, mask, expected, headers)
    raise SystemExit({"rejected": REJECTED, "mismatch": MISMATCH}.get(explanation.verdict, 0))
