"""One database a service, reached through one pool. Stores write their SQL out; this module runs it.

A transaction either commits as a whole or leaves nothing. A lock that is not granted, a statement that takes
too long and a connection that breaks all arrive as `Unknown`: the caller asks again under the same key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg2.extras
from psycopg2 import errorcodes
from sqlalchemy import Connection, RowMapping, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.chassis import wire
from services.chassis.errors import Unknown
from services.chassis.settings import DatabaseSettings

Row = RowMapping
T = TypeVar("T")

LOCK_NOT_AVAILABLE = errorcodes.LOCK_NOT_AVAILABLE
_ASK_AGAIN = {  # the server is well, this attempt was not: the same call may succeed
    LOCK_NOT_AVAILABLE,
    errorcodes.DEADLOCK_DETECTED,
    errorcodes.SERIALIZATION_FAILURE,
    errorcodes.QUERY_CANCELED,
    errorcodes.TOO_MANY_CONNECTIONS,
}

_PARAMETER = re.compile(r"%\((\w+)\)s")

psycopg2.extras.register_uuid()  # type: ignore[no-untyped-call]
psycopg2.extras.register_default_jsonb(globally=True, loads=wire.decode)


class LockNotGranted(Unknown):
    """The row is locked by somebody else: at once under NOWAIT, else after `lock_timeout`."""


class AlreadyThere(Exception):
    """A unique index refused the row. `constraint` names the index."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint
        super().__init__(constraint)


class DatabaseFault(Exception):
    """PostgreSQL refused a statement for a reason that no caller can mend.

    It carries the primary message alone: the detail beneath it quotes the row's values, which no log may show.
    """


class Transaction:
    """The statements of one transaction. Parameters are named: `%(seat_id)s`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def one(self, sql: str, **params: Any) -> Row | None:
        """The first row, or None."""
        return self._connection.exec_driver_sql(sql, params).mappings().first()

    def only(self, sql: str, **params: Any) -> Row:
        """The row of a statement that always has one."""
        return self._connection.exec_driver_sql(sql, params).mappings().one()

    def all(self, sql: str, **params: Any) -> list[Row]:
        """Every row, in the statement's order."""
        return list(self._connection.exec_driver_sql(sql, params).mappings())

    def run(self, sql: str, **params: Any) -> int:
        """The number of rows that the statement changed."""
        return self._connection.exec_driver_sql(sql, params).rowcount


class Database:
    """A pool of connections to the service's own database."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._engine = create_engine(
            URL.create(
                "postgresql+psycopg2",
                settings.user,
                settings.password,
                settings.host,
                settings.port,
                settings.name,
            ),
            pool_size=settings.pool_size,
            max_overflow=0,
            hide_parameters=True,  # they would reach the log with an error, and among them are secrets
            pool_timeout=settings.lock_timeout_ms / 1000,
            pool_use_lifo=True,
            connect_args={
                "connect_timeout": 3,
                "application_name": settings.user,
                "options": f"-c timezone=UTC -c lock_timeout={settings.lock_timeout_ms} "
                f"-c statement_timeout={settings.statement_timeout_ms}",
            },
        )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    def statement(self, sql: str, **params: Any) -> Row | None:
        """The first row of a statement that is a transaction by itself: one round trip, planned once a connection.

        Raises what `transaction` raises.
        """
        try:
            with self._autocommit.connect() as connection:
                return Transaction(connection).one(_prepared(connection, sql), **params)
        except (DBAPIError, PoolTimeout) as error:
            raise _translated(error) from None  # the original quotes rows, and a log would show them

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: commits at the end of the block, rolls back on any exception.

        Raises LockNotGranted, AlreadyThere, or Unknown when the database cannot answer. An Unknown raised by the
        commit itself may have committed: only a key written in the same transaction can tell.
        """
        try:
            with self._engine.begin() as connection:
                yield Transaction(connection)
        except (DBAPIError, PoolTimeout) as error:
            raise _translated(error) from None  # the original quotes rows, and a log would show them

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction of its own and return its result."""
        with self.transaction() as tx:
            return work(tx)

    def is_ready(self) -> bool:
        """True when a statement comes back: the readiness check."""
        try:
            with self.transaction() as tx:
                return tx.one("SELECT 1") is not None
        except Unknown:
            return False

    def close(self) -> None:
        """Give every connection back to the server."""
        self._engine.dispose()


def _prepared(connection: Connection, sql: str) -> str:
    """The EXECUTE of `sql`, which this connection has prepared when it met it first.

    PostgreSQL infers the parameters' types from where they stand.
    """
    known: dict[str, str] = connection.info.setdefault("prepared", {})
    if sql not in known:
        name, parameters = f"statement_{len(known)}", list(dict.fromkeys(_PARAMETER.findall(sql)))
        numbered = _PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", sql)
        connection.exec_driver_sql(f"PREPARE {name} AS {numbered}")
        values = ", ".join(f"%({parameter})s" for parameter in parameters)
        known[sql] = f"EXECUTE {name} ({values})" if parameters else f"EXECUTE {name}"
    return known[sql]


def _translated(error: DBAPIError | PoolTimeout) -> Exception:
    if isinstance(error, PoolTimeout):
        return Unknown("every database connection is busy")
    code = getattr(error.orig, "pgcode", None)
    if isinstance(error, IntegrityError) and code == errorcodes.UNIQUE_VIOLATION:
        return AlreadyThere(error.orig.diag.constraint_name)  # type: ignore[union-attr]
    if code == LOCK_NOT_AVAILABLE:
        return LockNotGranted("the row is locked")
    if code in _ASK_AGAIN or code is None or code.startswith(("08", "57")) or error.connection_invalidated:
        return Unknown("the database did not answer")
    return DatabaseFault(f"{type(error.orig).__name__} {code}: {_primary(error.orig)}")


def _primary(original: BaseException | None) -> str:
    return str(original.diag.message_primary) if isinstance(original, psycopg2.Error) else "unknown"
