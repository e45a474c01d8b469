"""One database a service, reached through one pool. Stores write their SQL out; this module runs it.

Of SQLAlchemy it takes the pool alone: what an engine does around a statement costs several times what these statements
do. Connections are in autocommit; a transaction opens in the round trip of its first statement.

A transaction either commits as a whole or leaves nothing. A lock that is not granted, a statement that takes
too long and a connection that breaks all arrive as `Unknown`: the caller asks again under the same key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errorcodes
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from services.chassis import json_codec
from services.chassis.errors import Unknown
from services.chassis.settings import DatabaseSettings

Row = dict[str, Any]
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
psycopg2.extras.register_default_jsonb(globally=True, loads=json_codec.decode)


class LockNotGranted(Unknown):
    """The row is locked by somebody else: at once under NOWAIT, else after `lock_timeout`."""


class UniqueViolation(Exception):
    """A unique index refused the row. `constraint` names the index."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint
        super().__init__(constraint)


class DatabaseFault(Exception):
    """PostgreSQL refused a statement for a reason that no caller can mend.

    It carries the primary message alone: the detail beneath it quotes the row's values, which no log may show.
    """


class _Connection(psycopg2.extensions.connection):
    """A connection in autocommit that knows what it has prepared."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocommit = True
        self._cursor = self.cursor()
        self._prepared: dict[str, str] = {}

    def ask(self, sql: str, params: dict[str, Any] | None = None) -> Any:
        """Run a statement; the cursor that has its result."""
        self._cursor.execute(sql, params)
        return self._cursor

    def prepared(self, sql: str) -> str:
        """The EXECUTE of `sql`, which this connection has prepared when it met it first.

        PostgreSQL infers the parameters' types from where they stand.
        """
        if sql not in self._prepared:
            name, parameters = f"statement_{len(self._prepared)}", list(dict.fromkeys(_PARAMETER.findall(sql)))
            numbered = _PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", sql)
            self.ask(f"PREPARE {name} AS {numbered}")
            values = ", ".join(f"%({parameter})s" for parameter in parameters)
            self._prepared[sql] = f"EXECUTE {name} ({values})" if parameters else f"EXECUTE {name}"
        return self._prepared[sql]

    def abandon(self) -> None:
        """Roll back what is open; a connection that cannot is closed."""
        try:
            if self.get_transaction_status() != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                self.ask("ROLLBACK")
        except psycopg2.Error:
            self.close()


class Transaction:
    """The statements of one transaction. Parameters are named: `%(seat_id)s`."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._is_open = False

    def one(self, sql: str, **params: Any) -> Row | None:
        """The first row, or None."""
        return _first(self._ask(sql, params))

    def only(self, sql: str, **params: Any) -> Row:
        """The row of a statement that always has one."""
        (row,) = self.all(sql, **params)
        return row

    def all(self, sql: str, **params: Any) -> list[Row]:
        """Every row, in the statement's order."""
        cursor = self._ask(sql, params)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def run(self, sql: str, **params: Any) -> int:
        """The number of rows that the statement changed."""
        return int(self._ask(sql, params).rowcount)

    def commit(self) -> None:
        """End it; one without a statement has not begun."""
        if self._is_open:
            self._connection.ask("COMMIT")

    def _ask(self, sql: str, params: dict[str, Any]) -> Any:
        opening, self._is_open = "" if self._is_open else "BEGIN; ", True
        return self._connection.ask(opening + sql, params)


class Database:
    """A pool of connections to the service's own database."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._pool = QueuePool(
            lambda: _connected(settings),
            pool_size=settings.pool_size,
            max_overflow=0,
            timeout=settings.lock_timeout_ms / 1000,
            use_lifo=True,
            reset_on_return=None,  # nothing is open on a connection that is given back
        )

    def statement(self, sql: str, **params: Any) -> Row | None:
        """The first row of a statement that is a transaction by itself: one round trip, planned once a connection.

        Raises what `transaction` raises.
        """
        with self._lent() as connection:
            return _first(connection.ask(connection.prepared(sql), params))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction: commits at the end of the block, rolls back on any exception.

        Raises LockNotGranted, UniqueViolation, or Unknown when the database cannot answer. An Unknown raised by the
        commit itself may have committed: only a key written in the same transaction can tell.
        """
        with self._lent() as connection:
            tx = Transaction(connection)
            try:
                yield tx
                tx.commit()
            except BaseException:
                connection.abandon()
                raise

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction of its own and return its result."""
        with self.transaction() as tx:
            return work(tx)

    def is_ready(self) -> bool:
        """True when the schema is there and can be read: the readiness check."""
        try:
            return self.statement("SELECT shift FROM clock_offset") is not None
        except (Unknown, DatabaseFault):
            return False

    def close(self) -> None:
        """Give every connection back to the server."""
        old, self._pool = self._pool, self._pool.recreate()
        old.dispose()

    @contextmanager
    def _lent(self) -> Iterator[_Connection]:
        lent = None
        try:
            lent = self._pool.connect()
            yield cast(_Connection, lent.dbapi_connection)
        except (psycopg2.Error, PoolTimeout) as error:
            raise _translated(error) from None  # the original quotes rows, and a log would show them
        finally:
            if lent is not None:
                self._take_back(lent)

    def _take_back(self, lent: PoolProxiedConnection) -> None:
        if cast(_Connection, lent.dbapi_connection).closed:
            lent.invalidate()
            self.close()  # whatever ended this connection has ended the others
        else:
            lent.close()


def _connected(settings: DatabaseSettings) -> Any:
    return psycopg2.connect(
        host=settings.host,
        port=settings.port,
        dbname=settings.name,
        user=settings.user,
        password=settings.password,
        connect_timeout=3,
        application_name=settings.user,
        options=f"-c timezone=UTC -c lock_timeout={settings.lock_timeout_ms} "
        f"-c statement_timeout={settings.statement_timeout_ms}",
        connection_factory=_Connection,
    )


def _first(cursor: Any) -> Row | None:
    if cursor.description is None:
        return None
    row = cursor.fetchone()
    return None if row is None else {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _translated(error: psycopg2.Error | PoolTimeout) -> Exception:
    if isinstance(error, PoolTimeout):
        return Unknown("every database connection is busy")
    code = error.pgcode
    if code == errorcodes.UNIQUE_VIOLATION:
        return UniqueViolation(str(error.diag.constraint_name))
    if code == LOCK_NOT_AVAILABLE:
        return LockNotGranted("the row is locked")
    if code is None or code in _ASK_AGAIN or code.startswith(("08", "57")):
        return Unknown("the database did not answer")
    return DatabaseFault(f"{type(error).__name__} {code}: {error.diag.message_primary}")
