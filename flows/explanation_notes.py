"""Sentences beside an explanation, by key: English for the command line and the API, other languages in the console."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "judged_now": "it is judged as if it came now: --at says when it was received",
        "only_then": "only because of --at: now, at {now}, it would be taken",
        "only_then_answer": "only because of --at: now it would be taken",
        "line_break": "without the line break at the end of the body it verifies: an editor has put it there",
        "reference_not_compared": "whether it is the payment that was queried is not compared: no channel_reference "
        "was given",
        "hint": "its signature does not cover the whole body: it is a hint, which leads to a query and has no other "
        "effect",
        "no_evidence": "it says nothing about money: the payment stays as it is, and is queried again",
        "unreadable": "it is genuine and cannot be read: it is stored, its payment is looked for, and a case opens at "
        "once",
        "no_money": "it is genuine and about no money of a payment: it is counted and has no effect",
        "other_world": "it is genuine and about the other world, test or live: it is counted and has no effect",
        "mismatch": "it is genuine and says {kind}, of something else: a case opens, and nothing becomes paid",
        "mismatch_hint": "it is genuine and says {kind}, of something else: it leads to a query, and nothing becomes "
        "paid",
        "approved": "the buyer has agreed, and the money is taken only when the channel is asked to",
        "certificate_needed": "the account downloads the channel's certificates, which a running process does; here "
        "there are none",
        "fetch_failed": "the channel's certificate, or its own verification, had to be fetched from the channel and "
        "could not be ({reason}); the service answers 503, and the channel sends the callback again",
        "unknown_number": "no payment with this number is known at this account: there is nothing to compare it with",
        "not_kept": "its raw bytes are not kept any more, or never were: what is shown was noted when it came",
        "cut_off": "only its first bytes are kept, so it cannot be verified again: what is shown was noted when it "
        "came",
        "no_account": "there is no such account: nothing can verify it",
        "account_not_opened": "its account cannot be opened here, so nothing can verify it",
        "sealed": "no master key opens its body, so it cannot be verified again: what is shown was noted when it came",
        "verifies_now": "it was refused when it came, and verifies with the account's keys of today",
        "does_not_verify_now": "it was genuine when it came, and does not verify with the account's keys of today",
    }
)


class Note(msgspec.Struct, frozen=True):
    """One sentence: its key in `NOTES`, and the words in it by name."""

    key: str
    words: Mapping[str, str] = {}

    @property
    def text(self) -> str:
        """The sentence in English."""
        return NOTES[self.key].format_map(self.words)
