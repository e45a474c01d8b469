"""One PostgreSQL for a pytest session, with one database per service, as the tests of the stores need it.

It is the embedded one, or a container where the system runs in containers; its socket is all that anybody sees of it.

    def test_something(database_for):
        db = Database(database_for("order"))

A database has what production's has: services/chassis/schema.sql, then the service's own schema.sql and seed.sql, run
as the service's own role. Tests share it and keep apart by fresh ids; nothing is truncated between them.
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
from pathlib import Path
from typing import Any

import psycopg2

from harness.runtime.postgres import SUPERUSER, find_binaries, unprivileged_command
from harness.runtime.process import Identity, find_leftovers, kill_all
from services.chassis.settings import DatabaseSettings
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
START_SECONDS = 30
SHARED_POSTGRES = "TEST_POSTGRES_HOME"  # names a server for a whole session (see `Databases`)
PREFIX, OWNER = "ticketremaster-test-", "owner"
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")  # nothing outlives a test run

_EMPTIED = """
DROP SCHEMA public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC"""


class Databases:
    """The server. `close` stops it and removes its files.

    `lent` is the home of a server that somebody else runs: its databases are made here, and nothing is stopped.
    """

    def __init__(self, lent: str | None = None) -> None:
        self.home = Path(lent or tempfile.mkdtemp(prefix=PREFIX))
        self._data = self.home / "postgres" / "data"  # where `process.find_leftovers` looks for a server
        self._stop = None if lent else self._opened()
        self._ready: dict[str, DatabaseSettings] = {}

    def database_for(self, service: str) -> DatabaseSettings:
        """Where the database of `service` ("user", "order", …) is; created with schema and seed at the first call."""
        if service not in self._ready:
            self._ready[service] = self._created(service)
        return self._ready[service]

    def superuser(self, service: str) -> Any:
        """A superuser's connection to the database of `service`, in autocommit. The caller closes it."""
        settings = self.database_for(service)
        return self._connected(settings.name, SUPERUSER)

    def shift_clock(self, service: str, seconds: float) -> None:
        """Move app_now() of one service's database to `seconds` after the real time; 0 sets it right again."""
        with closing(self.superuser(service)) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE clock_offset SET shift = make_interval(secs => %s)", (seconds,))

    def empty(self) -> None:
        """Drop all that is in the databases, whoever made it and whoever is still connected."""
        self._ready.clear()
        with closing(self._connected("postgres", SUPERUSER)) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT datname FROM pg_database WHERE datname = ANY(%s)", ([name for name, _ in ROLES.values()],)
            )
            made = [name for (name,) in cursor.fetchall()]
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)", (made,))
        for name in made:
            with closing(self._connected(name, SUPERUSER)) as connection, connection.cursor() as cursor:
                cursor.execute(_EMPTIED)

    def close(self) -> None:
        """Stop the server at once and remove its files."""
        if self._stop is not None:
            self._stop()
            shutil.rmtree(self.home, ignore_errors=True)

    def _opened(self) -> Callable[[], object]:
        """Start the server; what stops it again."""
        end_leftovers()
        self._data.parent.mkdir()
        for directory in (self.home, self._data.parent):
            directory.chmod(0o777)  # whoever PostgreSQL runs as when we are root makes its files in here
        _sign(self.home)
        if IN_CONTAINERS:
            return _containers().postgres(IMAGE, self.home, SUPERUSER, FAST).stop  # type: ignore[no-any-return]
        process = self._start()

        def stop() -> None:
            process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown: it does not wait for idle clients
            process.wait(timeout=START_SECONDS)

        return stop

    def _start(self) -> subprocess.Popen[bytes]:
        made = ["initdb", "-D", str(self._data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"]
        made += ["--locale=C.UTF-8", "--no-sync"]
        subprocess.run(self._command(*made), check=True, stdout=subprocess.DEVNULL, cwd="/")
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
                self._connected("postgres", SUPERUSER).close()
                return
            except psycopg2.OperationalError:
                time.sleep(0.02)  # until the deadline: the server says by accepting that it is up
        process.kill()
        process.wait()
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.home / 'postgres.log').read_text()}")

    def _connected(self, database: str, user: str) -> Any:
        connection = psycopg2.connect(host=str(self.home), dbname=database, user=user)
        connection.autocommit = True
        return connection

    def _created(self, service: str) -> DatabaseSettings:
        name, role = ROLES[service]
        with closing(self._connected("postgres", SUPERUSER)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if not cursor.rowcount:  # else this server was lent to others before us, and emptied
                cursor.execute(f"CREATE ROLE {role} LOGIN")
                cursor.execute(f"CREATE DATABASE {name} OWNER {role}")
        with closing(self._connected(name, role)) as connection, connection.cursor() as cursor:
            for script in scripts(service):
                cursor.execute(script.read_text())
        return DatabaseSettings(host=str(self.home), port=5432, name=name, user=role, password="")


def end_leftovers() -> None:
    """A session that was killed could not stop its server: the next one stops it and removes its files."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        if owner.stat().st_uid == os.getuid() and not Identity(*json.loads(owner.read_text())).is_alive():
            if IN_CONTAINERS:
                _containers().end_leftovers()
            kill_all(find_leftovers(owner.parent))
            shutil.rmtree(owner.parent, ignore_errors=True)


def _containers() -> Any:
    from tests.support import containers  # imports a client of the engine, which need not be there

    return containers


def _sign(home: Path) -> None:
    me = Identity.of(os.getpid())
    unfinished = home / f"{OWNER}.new"
    unfinished.write_text(json.dumps([me.pid, me.started]))
    unfinished.rename(home / OWNER)  # whole from its first moment: another session may be looking


def scripts(service: str) -> list[Path]:
    """The SQL files that make the database of `service`, in order."""
    own = (SERVICES / service / name for name in ("schema.sql", "seed.sql"))
    return [SERVICES / "chassis" / "schema.sql", *(script for script in own if script.exists())]
