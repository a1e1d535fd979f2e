"""Every fault nodrop names, as one tree, with its message for people. Expected outcomes are values.

    NodropError
    ├── CallerError          the caller's fault: answered 4xx, nothing changed
    ├── ChannelError         the channel's side
    │   ├── OutcomeUnknown   only a query may follow, never a conclusion
    │   │   ├── ChannelUnavailable
    │   │   │   └── ChannelNotCalled
    │   │   └── ChannelUnreadable
    │   ├── ChannelRefused   definite: the channel understood and said no
    │   │   └── CaptureDeclined
    │   └── CallbackRejected
    │       ├── CallbackForged
    │       └── CallbackStale
    ├── StorageError
    │   ├── DatabaseUnavailable
    │   │   ├── DatabaseRefused
    │   │   └── RowLocked
    │   ├── RedisUnavailable
    │   ├── TransactionClaimed
    │   └── ConflictsExhausted
    └── ConfigurationError   stops the process at its start, and names what to set

`IllegalMove` stands outside: it is a bug in a decision, and ends loudly.

Faults of HTTP alone (a body too large, an unknown API key) are `CallerError`s in `api.http.errors`; the HTTP status of
each fault is in `api.http.problems`, in one table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from core.acts import Line, Preview


class NodropError(Exception):
    """`sentence` is the detail with what it was made of, where that is a `core.sentences.Sentence`."""

    title: ClassVar[str] = "Something went wrong."

    def __init__(self, detail: str = "") -> None:
        super().__init__(str(detail) or self.title)
        self.detail = str(detail)
        self.sentence = detail


# -- the caller's fault ------------------------------------------------------------------------------------------------


class CallerError(NodropError):
    title = "The request cannot be carried out as it stands."


class InvalidRequest(CallerError):
    title = "The request is malformed."


class NotFound(CallerError):
    title = "There is nothing here under this name."


class OrderConflict(CallerError):
    title = "An order with this number exists with other terms."


class NumberTaken(CallerError):
    title = "A payment with this number is already known at this account."


class OrderPaid(CallerError):
    title = "The order is already paid."


class OrderClosed(CallerError):
    title = "The order is closed."


class PaymentUnclear(CallerError):
    title = (
        "An earlier payment of this order may still be paid: another one is not started until the channel has answered."
    )


class PaymentRefused(CallerError):
    title = "The channel refused to create the payment."


class RefundConflict(CallerError):
    title = "A refund with this key exists with other terms."


class NotPossible(CallerError):
    title = "As things stand this cannot be done."

    def __init__(self, line: Line) -> None:
        super().__init__(line.text)
        self.line = line


class PreviewOutdated(CallerError):
    title = "The order has changed since it was looked at: look at it again, and decide again."

    def __init__(self, preview: Preview) -> None:
        super().__init__()
        self.preview = preview


class UnknownAccount(CallerError):
    title = "There is no enabled account with this name."


class TooManyRequests(CallerError):
    title = "Too many requests."

    def __init__(self, detail: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


# -- the channel's side ------------------------------------------------------------------------------------------------


class ChannelError(NodropError):
    title = "The channel did not do what was asked."


class OutcomeUnknown(ChannelError):
    title = "The channel may or may not have acted: only a query may follow."


class ChannelUnavailable(OutcomeUnknown):
    title = "The channel could not be reached, did not answer in time, or answered that it is broken."


class ChannelNotCalled(ChannelUnavailable):
    title = "No connection of this process was free, so the channel was not called."


class ChannelUnreadable(OutcomeUnknown):
    title = "The channel's answer could not be read or its signature did not verify."


class ChannelRefused(ChannelError):
    title = "The channel understood the request and refused it."

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code


class CaptureDeclined(ChannelRefused):
    title = "The channel definitely took no money for the buyer's approval, and will not for this one."


class CallbackRejected(ChannelError):
    title = "The callback is not from the channel."


class CallbackForged(CallbackRejected):
    title = "The callback's signature did not verify."


class CallbackStale(CallbackRejected):
    title = "The callback's signature is older or newer than the channel's tolerance."


# -- storage -----------------------------------------------------------------------------------------------------------


class StorageError(NodropError):
    title = "A store did not answer."


class DatabaseUnavailable(StorageError):
    title = "Postgres cannot be reached or does not answer."


class DatabaseRefused(DatabaseUnavailable):
    title = "Postgres refuses what the settings say: its detail names the variable."


class RowLocked(DatabaseUnavailable):
    title = "Somebody else has locked a row for longer than this statement waits."


class RedisUnavailable(StorageError):
    title = "Redis cannot be reached or does not answer."


class TransactionClaimed(StorageError):
    title = "Another payment of the account already has this channel transaction."


class ConflictsExhausted(StorageError):
    title = "The order kept changing under every try to commit; it is tried again later."


class ConfigurationError(NodropError):
    title = "The configuration cannot be used."


class IllegalMove(Exception):  # outside the tree: a bug of ours, which no handler of expected faults may catch
    """A decision moves an order, a payment or a refund to a status that may not follow its present one."""
