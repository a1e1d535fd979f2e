"""Bugs that are put into a copy of the product, one at a time, to see whether worlds find them.

Each is one replacement of a text that is in its file once. The copy is a directory of its own; the checkout stays as it
is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from demo.embedded import temporary_directory
from tests.servers import ROOT
from tests.simulation.outcome import Outcome
from tests.simulation.runner import WorldFailed

WORLD_S = 600.0
"""A world that takes longer has failed."""

LIMIT_S = 2 * WORLD_S
ERROR_MAX = 200


class Bug(msgspec.Struct, frozen=True, kw_only=True):
    """A bug, and the profile of worlds that shows it most often."""

    name: str
    path: str
    old: str
    new: str
    profile: str = "usual"


class Hunt(msgspec.Struct, frozen=True, kw_only=True):
    """The result of worlds with a bug: after so many orders one of `seed` broke these invariants; none: not found.

    `error`: the world of `seed` had no outcome, so this bug was neither found nor missed.
    """

    bug: str
    orders: int
    seed: int | None = None
    invariants: tuple[str, ...] = ()
    sentence: str = ""
    error: str = ""

    @property
    def is_found(self) -> bool:
        return bool(self.invariants)


_DOOR = "storage/postgres/door/statement.py"
_JUDGING = "core/lifecycle/judging.py"

BUGS: tuple[Bug, ...] = (
    Bug(
        name="a query is not armed",
        path=_DOOR,
        old="     WHERE operation = 'insert'\n    ON CONFLICT (channel_account, out_trade_no) DO NOTHING",
        new="     WHERE operation = 'insert' AND kind <> 'query'\n"
        "    ON CONFLICT (channel_account, out_trade_no) DO NOTHING",
    ),
    Bug(
        name="a deadline is not armed",
        path=_DOOR,
        old="     WHERE operation = 'insert'\n    ON CONFLICT (channel_account, out_trade_no) DO NOTHING",
        new="     WHERE operation = 'insert' AND kind <> 'deadline'\n"
        "    ON CONFLICT (channel_account, out_trade_no) DO NOTHING",
    ),
    Bug(
        name="a row that is due again keeps its lease",
        path=_DOOR,
        old="leased_at = NULL, leased_until = NULL, due_at = r.due_at,",
        new="leased_at = NULL, leased_until = now() + interval '2 days', due_at = r.due_at,",
    ),
    Bug(
        name="an unclear answer ends the payment",
        path=_JUDGING,
        old="            return _observe(state, payment, evidence, by, Outcome.UNCLEAR, reason)",
        new="            return close_payment(state, payment, evidence, rules, by)",
        profile="harsh",
    ),
    Bug(
        name="missing and unpaid end the payment at once",
        path="core/lifecycle/ending.py",
        old="        case Unpaid(under_way=True):\n            return False\n        case Missing()",
        new="        case Missing() | Unpaid() | Approved():\n            return True\n        case Missing()",
    ),
    Bug(
        name="an approval counts as money",
        path="channels/paypal/wire.py",
        old='        case "APPROVED":\n            return Approved(**common)',
        new='        case "APPROVED":\n            return Paid(**common, channel_transaction_id=order.id)',
    ),
    Bug(
        name="money for a paid order opens no case",
        path="core/lifecycle/paying.py",
        old="cases=(_double_case(paid), *cases),",
        new="cases=cases,",
    ),
    Bug(
        name="a second payment pays the order again",
        path="core/lifecycle/paying.py",
        old="    is_wanted = rules.double_policy is DoublePolicy.REFUND",
        new="    if not state.refunds:\n"
        "        return _pay_order(state, paid, evidence, by, Outcome.PAID, cases, late=False)\n"
        "    is_wanted = rules.double_policy is DoublePolicy.REFUND",
    ),
    Bug(
        name="late money opens a case and pays nothing",
        path="core/lifecycle/paying.py",
        old="    if rules.late_policy is LatePolicy.ACCEPT:",
        new="    if rules.late_policy is None:",
        profile="harsh",
    ),
    Bug(
        name="each attempt of a notification has an id of its own",
        path="flows/notify.py",
        old='            "webhook-id": outgoing.id,',
        new='            "webhook-id": f"{outgoing.id}-{outgoing.attempt}",',
        profile="harsh",
    ),
    Bug(
        name="each attempt of a notification has other bytes",
        path="flows/notify.py",
        old="        try:\n            parts, url = self._read_url(outgoing.url)",
        new='        outgoing = replace(outgoing, body=outgoing.body + b" " * outgoing.attempt)\n'
        "        try:\n            parts, url = self._read_url(outgoing.url)",
        profile="harsh",
    ),
    Bug(
        name="a failed delivery counts as one",
        path="flows/notify.py",
        old="    if delivery.ok:\n        await notifications.finish(",
        new="    if not is_dead:\n        await notifications.finish(",
        profile="harsh",
    ),
    Bug(
        name="a timed-out delivery is final",
        path="flows/notify.py",
        old="                return Delivery(ok=False, status=notifications.TIMED_OUT)",
        new="                return Delivery(ok=False, status=notifications.TIMED_OUT, is_final=True)",
        profile="merchant_hangs",
    ),
    Bug(
        name="the sweep finds nothing",
        path="flows/sweep.py",
        old="            rows = await kind.claim(limit) if limit else ()",
        new="            rows: Sequence[object] = ()",
        profile="crashes",
    ),
    Bug(
        name="a callback is acknowledged that could not be stored",
        path="flows/callback.py",
        old="        await park_callback(resources, parked)\n        raise",
        new="        return account.channel.acknowledge()",
        profile="postgres",
    ),
    Bug(
        name="a callback's hash is of other bytes",
        path="storage/postgres/inbox.py",
        old="        body_hash=sha256(body).digest(),",
        new="        body_hash=sha256(body + b' ').digest(),",
    ),
    Bug(
        name="any signature verifies",
        path="channels/kit/rsa.py",
        old="        key.verify(base64.b64decode(signature, validate=True), message, padding.PKCS1v15(), SHA256())",
        new="        base64.b64decode(signature)",
        profile="harsh",
    ),
    Bug(
        name="refunds are never requested",
        path="flows/refund.py",
        old="        result = await _request_or_query(resources, account, payment, leased, state)",
        new='        result = RefundResult(status=None, note="later")',
    ),
    Bug(
        name="a page that waits for money says closed",
        path="core/order.py",
        old="    return PublicStatus.PROCESSING if is_handed_off else PublicStatus.CREATED",
        new="    return PublicStatus.CLOSED if is_handed_off else PublicStatus.CREATED",
        profile="callbacks_never",
    ),
    Bug(
        name="a line of the log holds the secret of notifications",
        path="flows/notify.py",
        old="        type=outgoing.type,\n        attempt=outgoing.attempt,\n        status=delivery.status,",
        new="        type=resources.settings.notify_secrets,\n"
        "        attempt=outgoing.attempt,\n        status=delivery.status,",
    ),
    Bug(
        name="a second copy of a callback ends the first",
        path="storage/postgres/inbox.py",
        old="    ON CONFLICT (channel_account, notification_id, body_hash) DO UPDATE SET copies = callbacks.copies + 1",
        new="    ON CONFLICT (channel_account, notification_id, body_hash) DO UPDATE SET handled_at = now()",
        profile="harsh",
    ),
)


def hunt(bug: Bug, *, seed: int, worlds: int, orders: int) -> Hunt:
    """Live worlds of the bug's profile, one after another, until one breaks an invariant, or all are lived."""
    with temporary_directory() as directory:
        home = directory / "checkout"
        copy_checkout(home)
        put_in(bug, home)
        lived = 0
        for number in range(seed, seed + worlds):
            try:
                outcome = live(home, bug.profile, number, orders, directory / f"{number}.jsonl")
            except WorldFailed as error:
                return Hunt(bug=bug.name, orders=lived, seed=number, error=str(error))
            lived += outcome.orders
            if outcome.found:
                invariants = tuple(sorted({each.invariant.partition(" ")[0] for each in outcome.found}))
                sentence = outcome.found[0].sentence
                return Hunt(bug=bug.name, orders=lived, seed=number, invariants=invariants, sentence=sentence)
        return Hunt(bug=bug.name, orders=lived)


def live(home: Path, profile: str, seed: int, orders: int, results: Path) -> Outcome:
    """Live one world of a checkout, and return its outcome, which is in the file of results, too.

    Raises WorldFailed: it ended with an error, was killed, or did not end in time.
    """
    arguments = ["--seed", str(seed), "--orders", str(orders), "--profile", profile, "--jobs", "1"]
    arguments += ["--no-shrink", "--results", str(results), "--limit-s", f"{WORLD_S:g}"]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "run", *arguments],
            cwd=home,
            capture_output=True,
            check=False,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise WorldFailed(f"world {seed} did not end within {LIMIT_S:g} s") from None
    if not results.exists():
        error = ended.stderr.decode().strip().splitlines()[-1:]
        raise WorldFailed(" ".join(error)[:ERROR_MAX] or f"world {seed} ended with {ended.returncode}")
    return msgspec.json.decode(results.read_bytes().splitlines()[-1], type=Outcome)


def copy_checkout(home: Path) -> None:
    """Copy what git knows of the checkout, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - the one in PATH
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, home / name)


def put_in(bug: Bug, home: Path) -> None:
    """Put the bug into a checkout. Raises ValueError: its text is not in its file once."""
    path = home / bug.path
    text = path.read_text()
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.name}: {text.count(bug.old)} times in {bug.path}")
    path.write_text(text.replace(bug.old, bug.new))


def lines(hunts: Sequence[Hunt]) -> list[str]:
    """Return the table of a hunt, in Markdown."""
    out = ["| Bug | Found by | Orders | Seed |", "|---|---|---|---|"]
    for each in hunts:
        by = f"broken: {each.error}" if each.error else ", ".join(each.invariants) or "not found"
        out.append(f"| {each.bug} | {by} | {each.orders} | {'' if each.seed is None else each.seed} |")
    return out
