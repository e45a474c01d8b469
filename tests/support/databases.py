"""A PostgreSQL for a pytest session, with one database per service.

    def test_something(database_for):
        db = Database(database_for("order"))

The server is the embedded one, or a container if the system runs in containers. Clients use its Unix socket. Each
database is made as in production, by the scripts of `scripts`, all run as the service's role. Tests share the databases
and use fresh ids, because nothing is deleted between tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2

from harness.runtime.postgres import SUPERUSER, find_binaries, unprivileged_command
from harness.runtime.process import Identity, find_leftovers, kill_all
from harness.runtime.supervisor import START_SECONDS
from services.chassis.settings import Address, DatabaseSettings
from tests.support.running_stack import IN_CONTAINERS

IMAGE = "postgres:16"  # the version of compose.yaml
BIN = find_binaries(IMAGE)
SERVICES = Path(__file__).resolve().parents[2] / "services"
ROLES = {  # service: (database, role)
    "inventory": ("seats_db", "inventory_user"),
    "user": ("users_db", "user_svc_user"),
    "order": ("orders_db", "order_svc_user"),
    "event": ("events_db", "event_svc_user"),
    "orchestrator": ("sagas_db", "orchestrator_user"),
}
LOCK_SECONDS = 10.0  # how long a statement of a patient service waits for a lock
SHARED_POSTGRES = "TEST_POSTGRES_HOME"  # the directory of a running server to use (see `Databases`)
PREFIX, OWNER = "ticketremaster-test-", "owner"
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")  # no data outlives a test run

_DROP_ALL = """
DROP SCHEMA public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC"""


def be_patient(settings: DatabaseSettings, lock_seconds: float = LOCK_SECONDS) -> DatabaseSettings:
    """Return settings with limits that even a busy machine does not reach.

    A statement waits `lock_seconds` for a lock.
    """
    return replace(settings, lock_timeout_ms=int(lock_seconds * 1000), statement_timeout_ms=20_000)


class Databases:
    """The server. `close` stops it and deletes its files.

    With `shared_home`, the directory of a running server, this object only creates databases in that server.
    """

    def __init__(self, shared_home: str | None = None) -> None:
        self.home = Path(shared_home or tempfile.mkdtemp(prefix=PREFIX))
        self._data = self.home / "postgres" / "data"  # the place in which `process.find_leftovers` finds a server
        self._stop = None if shared_home else self._start_server()
        self._ready: dict[str, DatabaseSettings] = {}

    def database_for(self, service: str) -> DatabaseSettings:
        """Return the settings of the database of `service` ("user", "order", …), and create it on first use."""
        if service not in self._ready:
            self._ready[service] = self._create(service)
        return self._ready[service]

    def superuser(self, service: str) -> Any:
        """Open a connection as superuser, in autocommit mode. The caller closes it."""
        settings = self.database_for(service)
        return self._connect(settings.name, SUPERUSER)

    def shift_clock(self, service: str, seconds: float) -> None:
        """Set app_now() of one service's database to `seconds` after the real time."""
        with closing(self.superuser(service)) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE clock_offset SET shift = make_interval(secs => %s)", (seconds,))

    def back_up(self, service: str) -> None:
        """Copy the database of `service`. It must have no connections."""
        name = self.database_for(service).name
        with closing(self._connect("postgres", SUPERUSER)) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}_backup TEMPLATE {name}")

    def restore(self, service: str) -> None:
        """Replace the database of `service` by its copy, as an operator does. Ends the connections to it."""
        name, role = ROLES[service]
        with closing(self._connect("postgres", SUPERUSER)) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {name}_backup OWNER {role}")

    def empty(self) -> None:
        """Delete all objects in all databases, and end the connections to them."""
        self._ready.clear()
        with closing(self._connect("postgres", SUPERUSER)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT datname FROM pg_database WHERE datname = ANY(%s)", ([name for name, _ in ROLES.values()],)
            )
            names = [name for (name,) in cursor.fetchall()]
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)", (names,))
        for name in names:
            with closing(self._connect(name, SUPERUSER)) as connection, connection.cursor() as cursor:
                cursor.execute(_DROP_ALL)

    def close(self) -> None:
        """Stop the server at once and delete its files."""
        if self._stop is not None:
            self._stop()
            shutil.rmtree(self.home, ignore_errors=True)

    def _start_server(self) -> Callable[[], object]:
        """Start the server and return a function that stops it."""
        end_leftovers()
        self._data.parent.mkdir()
        for directory in (self.home, self._data.parent):
            directory.chmod(0o777)  # as root we run PostgreSQL as another user, which creates its files here
        _write_owner(self.home)
        if IN_CONTAINERS:
            return _containers().postgres(IMAGE, self.home, SUPERUSER, FAST).stop  # type: ignore[no-any-return]
        process = self._start_process()

        def stop() -> None:
            process.send_signal(signal.SIGINT)  # fast shutdown of PostgreSQL, which does not wait for idle clients
            process.wait(timeout=START_SECONDS)

        return stop

    def _start_process(self) -> subprocess.Popen[bytes]:
        initdb = ["initdb", "-D", str(self._data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"]
        initdb += ["--locale=C.UTF-8", "--no-sync"]
        subprocess.run(self._command(*initdb), check=True, stdout=subprocess.DEVNULL, cwd="/")
        server = self._command("postgres", "-D", str(self._data), "-k", str(self.home), "-h", "", *FAST)
        with open(self.home / "postgres.log", "wb") as log:
            process = subprocess.Popen(server, stdout=log, stderr=log, cwd="/")
        self._await_server(process)
        return process

    def _command(self, program: str, *arguments: str) -> list[str]:
        return unprivileged_command([str(BIN / program), *arguments], self._data)

    def _await_server(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                self._connect("postgres", SUPERUSER).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.02)
        process.kill()
        process.wait()
        output = (self.home / "postgres.log").read_text()
        raise RuntimeError(f"PostgreSQL did not start within {START_SECONDS} s, its log is:\n{output}")

    def _connect(self, database: str, user: str) -> Any:
        connection = psycopg2.connect(host=str(self.home), dbname=database, user=user)
        connection.autocommit = True
        return connection

    def _create(self, service: str) -> DatabaseSettings:
        name, role = ROLES[service]
        with closing(self._connect("postgres", SUPERUSER)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if not cursor.rowcount:  # a shared server keeps roles and databases of its earlier users
                cursor.execute(f"CREATE ROLE {role} LOGIN")
                cursor.execute(f"CREATE DATABASE {name} OWNER {role}")
        with closing(self._connect(name, role)) as connection, connection.cursor() as cursor:
            for script in scripts(service):
                cursor.execute(script.read_text())
        return DatabaseSettings(addresses=(Address(str(self.home), 5432),), name=name, user=role, password="")


def end_leftovers() -> None:
    """Stop the servers of sessions that were killed, and delete their files."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        if owner.stat().st_uid == os.getuid() and not Identity(*json.loads(owner.read_text())).is_alive():
            if IN_CONTAINERS:
                _containers().end_leftovers()
            kill_all(find_leftovers(owner.parent))
            shutil.rmtree(owner.parent, ignore_errors=True)


def _containers() -> Any:
    from tests.support import containers  # needs testcontainers, which is installed only where it is used

    return containers


def _write_owner(home: Path) -> None:
    me = Identity.of(os.getpid())
    unfinished = home / f"{OWNER}.new"
    unfinished.write_text(json.dumps([me.pid, me.started]))
    unfinished.rename(home / OWNER)  # atomic, because another session may read the file


def scripts(service: str) -> list[Path]:
    """The SQL files that create the database of `service`, in order."""
    own = (SERVICES / service / name for name in ("schema.sql", "seed.sql"))
    chassis = SERVICES / "chassis"
    return [chassis / "schema.sql", *(script for script in own if script.exists()), chassis / "init_complete.sql"]
