"""A PostgreSQL server with a real standby, for tests of a failover. Both listen on a Unix socket only."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from harness.runtime.postgres import SUPERUSER, unprivileged_command
from harness.runtime.supervisor import START_SECONDS
from services.chassis.settings import Address
from tests.support.databases import BIN
from tests.support.waiting import wait_until

SOCKET_PORT = 5432  # a part of the socket's name
FAST = ("-c", "fsync=off", "-c", "full_page_writes=off")  # a commit still waits for a synchronous standby


class Node:
    """One server in its own directory. It starts as a standby of `leader`, or empty."""

    def __init__(self, leader: Node | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ticketremaster-node-"))
        self.home.chmod(0o777)  # as root we run PostgreSQL as another user, which creates its files here
        self.address = Address(str(self.home), SOCKET_PORT)
        self._data = self.home / "data"
        if leader is None:
            self._run("initdb", "-D", str(self._data), "-U", SUPERUSER, "--auth=trust", "--no-sync")
        else:
            self._run("pg_basebackup", "-D", str(self._data), "-R", "-X", "stream", "-c", "fast", "-d", _dsn(leader))
        self._process = self._start()

    def stop(self) -> None:
        """Stop the server. It ends every session."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=START_SECONDS)

    def promote(self) -> None:
        """Let the standby accept writes."""
        self.execute("SELECT pg_promote()")

    def demote(self, leader: Node) -> None:
        """Restart the server as a standby of `leader`, as Patroni does. It must have been stopped cleanly."""
        (self._data / "standby.signal").touch()
        settings = self._data / "postgresql.auto.conf"
        settings.write_text(f"{settings.read_text()}\nprimary_conninfo = '{_dsn(leader)}'\n")
        self._process = self._start()

    def execute(self, sql: str) -> Any:
        """Run a statement as superuser and return its rows, if it has any."""
        with closing(psycopg2.connect(_dsn(self))) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def close(self) -> None:
        """Stop the server at once and delete its files."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=START_SECONDS)
        shutil.rmtree(self.home, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        server = ("-D", str(self._data), "-k", str(self.home), "-h", "", *FAST)
        with open(self.home / "postgres.log", "ab") as log:
            process = subprocess.Popen(self._command("postgres", *server), stdout=log, stderr=log, cwd="/")
        wait_until(self._accepts, START_SECONDS, "PostgreSQL accepts connections")
        return process

    def _accepts(self) -> bool:
        try:
            return bool(self.execute("SELECT true"))
        except psycopg2.OperationalError:
            return False

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(self._command(program, *arguments), check=True, stdout=subprocess.DEVNULL, cwd="/")

    def _command(self, program: str, *arguments: str) -> list[str]:
        return unprivileged_command([str(BIN / program), *arguments], self._data)


def _dsn(node: Node) -> str:
    return f"host={node.address.host} port={node.address.port} user={SUPERUSER} dbname=postgres"
