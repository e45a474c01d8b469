"""Access to the service's own PostgreSQL database through one connection pool.

The pool is a stack of idle connections, because the slots of the `Neighbour` already limit their number. Connections
are in autocommit. A transaction opens in the round trip of its first statement.

`DB_HOST` may list the nodes of a cluster. A connection is made only to the node that accepts writes, so no call reads
from a standby. The first read-only answer of a server closes the whole pool. A process reads only within PROOF_SECONDS
of a commit, because an old leader may not notice that another one has taken over (docs/concepts/failover.md).

A transaction commits completely or not at all. A lock timeout, a statement timeout and a broken connection raise
`Unknown`, so the caller retries with the same key.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errorcodes

from services.chassis import json_codec
from services.chassis.deadlines import Deadline
from services.chassis.errors import NoAnswer, Unknown, Unreachable
from services.chassis.kernel_limits import TCP_LIMITS
from services.chassis.neighbours import Neighbour
from services.chassis.settings import Address, DatabaseSettings

Row = dict[str, Any]
T = TypeVar("T")

LOCK_NOT_AVAILABLE = errorcodes.LOCK_NOT_AVAILABLE
_RETRYABLE = {  # the server works, so a retry of the same call may succeed
    LOCK_NOT_AVAILABLE,
    errorcodes.DEADLOCK_DETECTED,
    errorcodes.SERIALIZATION_FAILURE,
    errorcodes.QUERY_CANCELED,
}
_READ_ONLY = ("default_transaction_read_only", "in_hot_standby")  # the server reports each change with its next answer
# 08: the connection broke. 53: connections, memory or disk space are short. 57: an operator or a crash ended the
# session. 58: the operating system failed. A retry can succeed once that is over.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")

_IS_READY = "SELECT shift FROM clock_offset WHERE to_regnamespace('init_complete') IS NOT NULL"
# A server or a network that is silent never sends an answer, not even that of `statement_timeout`. These limits are the
# client's own. The kernel ends connections to a node that is gone. `Deadline` ends statements without an answer.
_CONNECT_SECONDS = 2  # for each host
_GRACE_SECONDS = 0.5  # after `statement_timeout`, in which the server reports the end of the statement
_REPEAT_SECONDS = 1.0  # a read that is lost later is not repeated, as its caller has given up
PROOF_SECONDS = 2.0
# This commit writes a record, so it waits for a synchronous standby. An old leader has none.
_PROOF = "SELECT pg_logical_emit_message(true, 'leader', '')"
_KERNEL_LIMITS = {  # the names of libpq for TCP_LIMITS
    "keepalives_idle": TCP_LIMITS["TCP_KEEPIDLE"],
    "keepalives_interval": TCP_LIMITS["TCP_KEEPINTVL"],
    "keepalives_count": TCP_LIMITS["TCP_KEEPCNT"],
    "tcp_user_timeout": TCP_LIMITS["TCP_USER_TIMEOUT"],
}

_PARAMETER = re.compile(r"%\((\w+)\)s")

psycopg2.extras.register_uuid()  # type: ignore[no-untyped-call]
psycopg2.extras.register_default_jsonb(globally=True, loads=json_codec.decode)


class LockNotGranted(Unknown):
    """Another transaction locks the row. It is raised immediately under NOWAIT, otherwise after `lock_timeout`."""


class ConnectionLost(NoAnswer):
    """The connection broke before the answer, for example because PostgreSQL was restarted."""


class UniqueViolation(Exception):
    """A unique index refused the row. `constraint` names the index."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint
        super().__init__(constraint)


class DatabaseFault(Exception):
    """PostgreSQL refused a statement because of a bug or a constraint, so a retry fails again.

    It contains only the primary message, because the detail quotes row values, which must not be logged.
    """


class _Connection(psycopg2.extensions.connection):
    """A connection in autocommit with its prepared statements."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.autocommit = True
        self._cursor = self.cursor()
        self._prepared: dict[str, str] = {}
        self._poller = select.poll()
        self._poller.register(self.fileno(), select.POLLIN)
        self.address = Address(self.info.host, self.info.port)  # of the node that accepted the connection
        self.longest_statement = 0.0  # seconds
        self.is_overdue = False

    def is_usable(self) -> bool:
        """False if an idle connection has something to read, which is usually the server's close. It takes 1 µs."""
        return not self._poller.poll(0)

    def is_read_only(self) -> bool:
        """True if the server has reported that it accepts no writes. It takes no round trip."""
        return any(self.get_parameter_status(name) == "on" for name in _READ_ONLY)

    def execute(self, sql: str, params: dict[str, Any] | None = None) -> Any:
        """Run a statement and return the cursor with its result."""
        with Deadline(self, self.longest_statement) as deadline:
            try:
                self._cursor.execute(sql, params)
            except psycopg2.Error:
                self.is_overdue = deadline.is_overdue
                raise
        return self._cursor

    def shut_down(self) -> None:
        """Shut down the socket from another thread. Raises OSError."""
        with suppress(psycopg2.InterfaceError), socket.socket(fileno=os.dup(self.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)  # a connection that is closed has no file

    def prepare(self, sql: str) -> str:
        """Prepare `sql` if this connection has not done so, and return its EXECUTE statement.

        PostgreSQL infers the types of the parameters from their positions.
        """
        if sql not in self._prepared:
            name, parameters = f"statement_{len(self._prepared)}", list(dict.fromkeys(_PARAMETER.findall(sql)))
            numbered = _PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", sql)
            self.execute(f"PREPARE {name} AS {numbered}")
            values = ", ".join(f"%({parameter})s" for parameter in parameters)
            self._prepared[sql] = f"EXECUTE {name} ({values})" if parameters else f"EXECUTE {name}"
        return self._prepared[sql]

    def run_statement(self, sql: str, params: dict[str, Any]) -> Any:
        """Run `sql` as a prepared statement. It is prepared again if a change of the schema has outdated it."""
        try:
            return self.execute(self.prepare(sql), params)
        except psycopg2.errors.FeatureNotSupported:  # "cached plan must not change result type": it did not run
            self.execute("DEALLOCATE ALL")
            self._prepared.clear()
            return self.execute(self.prepare(sql), params)

    def abandon(self) -> None:
        """Roll back an open transaction. Close the connection if that fails."""
        try:
            if self.get_transaction_status() != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
                self.execute("ROLLBACK")
        except psycopg2.Error:
            self.close()


class Transaction:
    """The statements of one transaction. Parameters are named: `%(seat_id)s`."""

    def __init__(self, connection: _Connection, begin: str = "BEGIN") -> None:
        self._connection = connection
        self._begin = f"{begin}; "
        self._is_open = False

    def one(self, sql: str, **params: Any) -> Row | None:
        """The first row, or None."""
        return _first(self._execute(sql, params))

    def only(self, sql: str, **params: Any) -> Row:
        """The row of a statement that always has one."""
        (row,) = self.all(sql, **params)
        return row

    def all(self, sql: str, **params: Any) -> list[Row]:
        """Every row, in the statement's order."""
        return _all(self._execute(sql, params))

    def run(self, sql: str, **params: Any) -> int:
        """The number of rows that the statement changed."""
        return int(self._execute(sql, params).rowcount)

    def commit(self) -> None:
        """Commit. A transaction without a statement has not begun, so it sends nothing."""
        if self._is_open:
            self._connection.execute("COMMIT")

    def _execute(self, sql: str, params: dict[str, Any]) -> Any:
        opening, self._is_open = "" if self._is_open else self._begin, True
        return self._connection.execute(opening + sql, params)


class Database:
    """A pool of connections to the service's own database."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._neighbour = Neighbour(settings.name, settings.pool_size, settings.lock_timeout_ms / 1000)
        self._settings = settings
        self._addresses = settings.addresses  # in the order in which they are tried
        self._proven_at = float("-inf")
        self._idle: deque[_Connection] = deque()

    def statement(self, sql: str, **params: Any) -> Row | None:
        """Run one statement as its own transaction and return its first row.

        It takes one round trip, and each connection plans the statement once. Raises the errors of `transaction`.
        A SELECT is repeated once on a new connection if its connection breaks.
        """
        return self._run_alone(_first, sql, params)

    def rows(self, sql: str, **params: Any) -> list[Row]:
        """Run one statement like `statement`, and return every row."""
        return self._run_alone(_all, sql, params)

    def _run_alone(self, read: Callable[[Any], T], sql: str, params: dict[str, Any]) -> T:
        def execute() -> T:
            with self._borrow() as connection:
                return read(connection.run_statement(sql, params))

        return _repeat_once(execute) if sql.lstrip().startswith("SELECT") else execute()

    @contextmanager
    def transaction(self, begin: str = "BEGIN") -> Iterator[Transaction]:
        """Open a transaction that commits at the end of the block and rolls back on any exception.

        Raises LockNotGranted, UniqueViolation, DatabaseFault, or Unknown if the database does not answer.
        If the commit itself raises Unknown, only a key written in the same transaction shows whether it happened.
        """
        with self._borrow() as connection:
            tx = Transaction(connection, begin)
            try:
                yield tx
                tx.commit()
            except BaseException:
                connection.abandon()
                raise

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a read-only transaction of its own and return its result.

        It is repeated once on a new connection if its connection breaks, because a read changes nothing.
        """

        def execute() -> T:
            with self.transaction("BEGIN READ ONLY") as tx:
                return work(tx)

        return _repeat_once(execute)

    def is_ready(self) -> bool:
        """The readiness check: True if the schema is complete and can be read."""
        try:
            return self.statement(_IS_READY) is not None
        except (Unknown, DatabaseFault):
            return False

    def close(self) -> None:
        """Close every idle connection."""
        with suppress(IndexError):  # another thread took the last one
            while True:
                self._idle.pop().close()

    @contextmanager
    def _borrow(self) -> Iterator[_Connection]:
        with self._neighbour.calling():
            connection: _Connection | None = None
            try:
                connection = self._pop_usable() or self._connect()
                self._prove_leader(connection)
                yield connection
            except psycopg2.Error as error:
                raise _translate(error, connection) from None  # the error quotes rows, which must not be logged
            finally:
                if connection is not None:
                    self._give_back(connection)

    def _prove_leader(self, connection: _Connection) -> None:
        """In a cluster, commit once in PROOF_SECONDS before anything is read."""
        started = time.monotonic()
        if self._settings.has_standbys and started - self._proven_at > PROOF_SECONDS:
            connection.execute(_PROOF)
            self._proven_at = started

    def _connect(self) -> _Connection:
        connection = _open_session(self._settings, self._addresses)
        self._addresses = tuple(sorted(self._addresses, key=lambda address: address != connection.address))
        return connection

    def _pop_usable(self) -> _Connection | None:
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        if connection.is_usable():
            return connection
        self._leave(connection)
        return None

    def _give_back(self, connection: _Connection) -> None:
        if connection.closed or connection.is_read_only():
            self._leave(connection)
        else:
            self._idle.append(connection)

    def _leave(self, connection: _Connection) -> None:
        """Close the pool, because its other connections are to the same server. The server is now tried last."""
        connection.close()
        self.close()
        self._proven_at = float("-inf")
        self._addresses = tuple(sorted(self._addresses, key=lambda address: address == connection.address))


def _open_session(settings: DatabaseSettings, addresses: tuple[Address, ...]) -> _Connection:
    """Connect to the first address that accepts writes. A silent node delays this by _CONNECT_SECONDS."""
    _drop_libpq_variables()
    connection: _Connection = psycopg2.connect(  # type: ignore[call-overload]  # the stub knows no libpq parameters
        host=",".join(address.host for address in addresses),
        port=",".join(str(address.port) for address in addresses),
        target_session_attrs="read-write",
        dbname=settings.name,
        user=settings.user,
        password=settings.password,
        connect_timeout=_CONNECT_SECONDS,
        application_name=settings.user,
        options=_build_options(settings),
        connection_factory=_Connection,
        **_KERNEL_LIMITS,
    )
    connection.longest_statement = settings.statement_timeout_ms / 1000 + _GRACE_SECONDS
    return connection


def _build_options(settings: DatabaseSettings) -> str:
    """Return the settings of a session.

    The server has the same limits of TCP, because it would otherwise keep the session of a lost client for two hours.
    It ends the session of a client that is frozen inside a transaction, so that its locks end.
    """
    values = {
        "timezone": "UTC",
        "lock_timeout": settings.lock_timeout_ms,
        "statement_timeout": settings.statement_timeout_ms,
        "idle_in_transaction_session_timeout": settings.statement_timeout_ms,
        **{f"tcp_{name.removeprefix('tcp_')}": limit for name, limit in _KERNEL_LIMITS.items()},
    }
    return " ".join(f"-c {name}={value}" for name, value in values.items())


def _drop_libpq_variables() -> None:
    """Remove the variables of libpq, such as PGHOSTADDR and PGSERVICE, from the environment of this process.

    They would override or add to the settings, and a connection string cannot switch all of them off.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _first(cursor: Any) -> Row | None:
    if cursor.description is None:
        return None
    row = cursor.fetchone()
    return None if row is None else {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _all(cursor: Any) -> list[Row]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _repeat_once(read: Callable[[], T]) -> T:
    started = time.monotonic()
    try:
        return read()
    except ConnectionLost:
        if time.monotonic() - started > _REPEAT_SECONDS:
            raise
        return read()


def _translate(error: psycopg2.Error, connection: _Connection | None) -> Exception:
    if connection is None:
        return Unreachable("the database cannot be reached")
    if connection.is_overdue:
        return NoAnswer("the database did not answer in time")
    if connection.closed:
        return ConnectionLost("the database closed the connection")
    code = error.pgcode
    if code == errorcodes.UNIQUE_VIOLATION:
        return UniqueViolation(str(error.diag.constraint_name))
    if code == LOCK_NOT_AVAILABLE:
        return LockNotGranted("the row is locked")
    if code == errorcodes.READ_ONLY_SQL_TRANSACTION and connection.is_read_only():
        return Unknown("the database server accepts no writes")
    if code is None or code in _RETRYABLE or code.startswith(_TRANSIENT_CLASSES):
        return Unknown("the database did not answer")
    return DatabaseFault(f"{type(error).__name__} {code}: {error.diag.message_primary}")
