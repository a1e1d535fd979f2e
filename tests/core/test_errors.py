import inspect

import pytest

from core import errors
from core.errors import (
    CallbackRejected,
    CallerError,
    CaptureDeclined,
    ChannelError,
    ChannelRefused,
    ChannelUnavailable,
    ChannelUnreadable,
    ConfigurationError,
    NodropError,
    NotFound,
    OutcomeUnknown,
    StorageError,
    TooManyRequests,
)

ALL = [member for _, member in inspect.getmembers(errors, inspect.isclass) if issubclass(member, NodropError)]


@pytest.mark.parametrize("error", ALL)
def test_every_fault_has_a_sentence_of_its_own(error: type[NodropError]) -> None:
    assert error.__dict__["title"].endswith(".")


def test_a_detail_replaces_the_message() -> None:
    assert (str(NotFound()), NotFound().detail) == ("There is nothing here under this name.", "")
    assert (str(NotFound("order A-1")), NotFound("order A-1").detail) == ("order A-1", "order A-1")
    assert str(ChannelRefused("CLOSED")) == "CLOSED"
    assert TooManyRequests(retry_after_s=2.5).retry_after_s == 2.5


def test_every_error_belongs_to_exactly_one_side() -> None:
    sides = (CallerError, ChannelError, StorageError, ConfigurationError)
    for error in set(ALL) - {NodropError}:
        assert sum(issubclass(error, side) for side in sides) == 1, error


def test_only_a_refusal_and_a_rejected_callback_are_definite() -> None:
    """All other channel errors leave the outcome unknown, so only a query may follow."""
    definite = {error for error in ALL if issubclass(error, ChannelError) and not issubclass(error, OutcomeUnknown)}
    rejected = {error for error in ALL if issubclass(error, CallbackRejected)}
    assert definite - rejected == {ChannelError, ChannelRefused, CaptureDeclined}
    assert issubclass(ChannelUnavailable, OutcomeUnknown)
    assert issubclass(ChannelUnreadable, OutcomeUnknown)
