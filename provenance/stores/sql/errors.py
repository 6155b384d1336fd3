"""Database errors, translated once: nothing of SQLAlchemy, sqlite3 or psycopg passes here.

=========================================  ==========================================
found                                      raised
=========================================  ==========================================
locked, refused, disconnected, full,       StoreUnavailable (retryable)
read-only, no free connection
a constraint is violated                   IntegrityError
a value that a column cannot hold          InputError
not a database, or without our tables;     ConfigError naming ``database_url``
a user without the rights, a standby
=========================================  ==========================================
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from provenance.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    ProvenanceError,
    StoreUnavailable,
)

KEY = "database_url"
_UNDEFINED_TABLE = "42P01"
_NOT_TO_BE_WRITTEN = ("42501", "25006")
"""PostgreSQL's insufficient_privilege and read_only_sql_transaction (appendix A)."""
_OF_VALUES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)
DATABASE_ERRORS = (exc.SQLAlchemyError, sqlite3.Error)
_THIRD_PARTY = (*DATABASE_ERRORS, OverflowError, UnicodeError)


@contextmanager
def translated(label: str, kinds: tuple[type[Exception], ...] = _THIRD_PARTY) -> Iterator[None]:
    """Raise what the block raises, in this project's words.

    Args:
        label: How messages name the database; without credentials.
        kinds: What is translated: :data:`DATABASE_ERRORS` where the block does other things too.
    """
    try:
        yield
    except kinds as error:
        cause = error.orig if isinstance(error, exc.StatementError) else None
        foreign = not isinstance(error, exc.DBAPIError) and not isinstance(cause, _OF_VALUES)
        if cause is not None and foreign:
            raise cause from None  # a signal's, say: no fault of the statement it came in
        raise translate(error, label) from error


def translate(error: Exception, label: str) -> ProvenanceError:
    """The error of this project that a database error stands for."""
    cause = error.orig if isinstance(error, exc.StatementError) and error.orig else error
    message = _first_line(cause)
    if _without_tables(cause, message):
        return ConfigError(
            KEY, f"{label} lacks tables of this release: it was not migrated ({message})"
        )
    if getattr(cause, "sqlstate", None) in _NOT_TO_BE_WRITTEN:
        return ConfigError(
            KEY, f"{label} is not this user's to write: {message}; expected its owner"
        )
    if message.startswith("invalid connection option"):  # libpq's words
        return ConfigError(KEY, f"{label}: {message}")
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return ConfigError(KEY, f"{label} is not a database, expected an SQLite file")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreUnavailable(f"{label} is locked by another process")
    if isinstance(error, exc.IntegrityError):
        return IntegrityError(f"{label}: {message}")
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable(f"{label}: no free connection in time")
    if isinstance(error, exc.DataError | OverflowError | UnicodeError) or (
        isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)
    ):
        return InputError(f"{label} cannot hold a value: {message}")
    return StoreUnavailable(f"{label}: {message}")


def _without_tables(cause: BaseException, message: str) -> bool:
    if isinstance(cause, sqlite3.OperationalError):
        return message.startswith("no such table")
    return getattr(cause, "sqlstate", None) == _UNDEFINED_TABLE


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
