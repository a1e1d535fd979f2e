"""Faults of asyncpg, mapped once: to ours, with a reason for a person and without a secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from core.errors import DatabaseRefused, DatabaseUnavailable, InvalidRequest, RowLocked
from core.sentences import Sentence
from storage.closed import is_closed_handle
from storage.postgres.address import Address
from storage.tls import explain_tls

STATEMENT_ELSEWHERE = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""Errors behind a pooler, which has given the session with a statement to another client."""

# Faults after which the outcome is unknown: nothing, everything or a part was done.
UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended between two statements
    asyncpg.OperatorInterventionError,  # shut down, started up, a statement cancelled
    asyncpg.InvalidAuthorizationSpecificationError,  # its password is being changed
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,  # a deadlock
    *STATEMENT_ELSEWHERE,
    OSError,
    TimeoutError,
)

# Errors of a server that is there and is not the one any more: a former primary, one that shuts down or starts. Other
# connections lead to it too, and the name of the host may lead elsewhere by now.
NOT_HERE = (
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.DatabaseDroppedError,
    asyncpg.InvalidCatalogNameError,
)

# Values that Postgres cannot hold: NUL in a text, a number beyond its type, a key too long for its index.
_NOT_STORABLE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError)


@contextmanager
def mapped_faults(address: Address) -> Iterator[None]:
    """The one place where faults of asyncpg become ours.

    Raises:
        DatabaseUnavailable, InvalidRequest: as `Database.fetch`.
    """
    try:
        yield
    except asyncpg.LockNotAvailableError as error:
        raise RowLocked(_reason(error, address)) from error
    except UNAVAILABLE as error:
        if refusal := _refusal(error, address):
            raise DatabaseRefused(refusal) from error
        raise DatabaseUnavailable(_reason(error, address)) from error
    except RuntimeError as error:
        if not is_closed_handle(error):
            raise
        raise DatabaseUnavailable(_reason(error, address)) from error
    except _NOT_STORABLE as error:  # whose text holds the value
        raise InvalidRequest(Sentence("a value that cannot be stored ({fault})", fault=type(error).__name__)) from None


def _reason(error: BaseException, address: Address) -> str:
    """The reason for a person, without user or password."""
    if isinstance(error, ConnectionRefusedError):
        return f"{_place(address)}: nothing listens there"
    return f"{_place(address)}: {type(error).__name__}"


def _refusal(error: BaseException, address: Address) -> str | None:
    """The sentence that names the variable to change; None: the settings may be right."""
    place, text = _place(address), str(error)
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return f"DATABASE_URL: {place} refuses the user or the password in it"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"DATABASE_URL: {place} has no database {address.database}: create it, or set another name"
    if "rejected SSL upgrade" in text:
        return f"DATABASE_TLS: {place} offers no TLS; set it to private if that network is private"
    if "startup parameter" in text:  # of pgbouncer and its like
        return f"STARTUP_PARAMETERS: {place} refuses ours; set it to false, as for every pooler"
    if isinstance(error, STATEMENT_ELSEWHERE):
        return f"STATEMENT_CACHE_SIZE: {place} keeps no prepared statements for its clients; set it to 0"
    return explain_tls(error, variable="DATABASE_TLS")


def _place(address: Address) -> str:
    return f"Postgres at {address.host}:{address.port}"
