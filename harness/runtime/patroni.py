"""The nodes of PostgreSQL: three servers in strict synchronous replication, each under its own Patroni."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import psutil
import urllib3

from harness.errors import StackError
from harness.runtime.etcd import CLIENTS
from harness.runtime.ports import HOST
from harness.runtime.postgres import (
    RECOVERY,
    SETTINGS,
    SUPERUSER,
    Database,
    Postgres,
    archive_settings,
    find_binaries,
    find_unprivileged_user,
    make_dsn,
    unprivileged_command,
)
from harness.runtime.process import find_family
from harness.runtime.program import Ports, make_state_dir
from harness.runtime.run_directory import write_private

SQL, REST = 5432, 8008
SCOPE, REPLICATOR = "ticketremaster", "replicator"
ANSWER_SECONDS = 3.0
# Seconds. Patroni allows no shorter `ttl`, and requires loop_wait + 2 * retry_timeout <= ttl. A leader without an
# answer from etcd gives up its role after two thirds of `retry_timeout`. That is later than a second election of etcd's
# leader, which happens if the votes of the first one are split.
DYNAMIC: Mapping[str, Any] = {
    "ttl": 20,
    "loop_wait": 2,
    "retry_timeout": 8,
    # As in the manifests: one of the two followers has each acknowledged commit, and without any, commits wait.
    "synchronous_mode": "quorum",
    "synchronous_mode_strict": True,
    # A follower takes over when the leader's server has died. Its crash recovery takes longer and commits wait for it.
    "primary_start_timeout": 0,
}
CLUSTER_SETTINGS = {
    "max_connections": "200",
    "wal_log_hints": "on",  # pg_rewind needs it
    "wal_keep_size": "128MB",
}
NODE_SETTINGS = {
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "wal_retrieve_retry_interval": "100ms",  # a follower connects again at once, because commits wait for it
    "wal_sender_timeout": "10s",
    "wal_receiver_timeout": "10s",
}


@dataclass
class Patroni(Postgres):
    """One node: Patroni and the server that it starts. It is ready when it leads, or follows the leader."""

    turns: ClassVar[int] = 3
    config: Path = Path()
    description: Mapping[str, Any] | None = None
    servers: tuple[int, ...] = ()  # the SQL ports of all nodes

    @property
    def listen_ports(self) -> tuple[int, ...]:
        """The port of Patroni. The server is not its child."""
        return (self.ports[REST],)

    @property
    def url(self) -> str:
        """The superuser's DSN of this node alone."""
        return make_dsn(SUPERUSER, self.password, (self.port,), "postgres")

    def prepare(self, env: Mapping[str, str]) -> None:
        """Write the configuration. Patroni creates the data."""
        self.make_archive()
        home = make_state_dir(self.config.parent.parent, self.config.parent.name)
        write_private(self.config, json.dumps(self.description, indent=1))
        if os.geteuid() == 0:
            for path in (home, self.config):
                shutil.chown(path, *find_unprivileged_user())

    def is_ready(self) -> bool:
        """Return whether the server leads, or streams from the leader."""
        state = self.read("/patroni")
        if state.get("role") == "primary":  # an old leader that was frozen still has this role, but no lease
            return state.get("state") == "running" and self._is_leader()
        return state.get("state") == "running" and state.get("replication_state") == "streaming"

    def after_ready(self) -> None:
        """Create roles, databases and schemas once, by the node that leads. Delete a backup that it started from.

        The leader has recovered before any node is ready. With the backup, a later start would return to its moment.
        """
        if backup := find_backup(self.config.parent.parent):
            (backup / RECOVERY).unlink(missing_ok=True)  # first, because a half deleted backup must not be used
            shutil.rmtree(backup, ignore_errors=True)
        if self.read("/patroni").get("role") == "primary":
            super().after_ready()

    def is_durable(self) -> bool:
        """Return whether a follower has each acknowledged commit."""
        return self.count_synchronous() > 0

    def count_synchronous(self) -> int:
        """Return the number of followers that can confirm a commit."""
        return sum(member["role"] == "quorum_standby" for member in self.read("/cluster").get("members", ()))

    def read(self, path: str) -> dict[str, Any]:
        """Return the answer of Patroni's API, or {} without one."""
        with suppress(urllib3.exceptions.HTTPError, ValueError):
            return cast(dict[str, Any], self._get(path).json())
        return {}

    def _is_leader(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return self._get("/leader").status == 200
        return False

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        address = f"http://{HOST}:{self.ports[REST]}{path}"
        return urllib3.request("GET", address, timeout=ANSWER_SECONDS, retries=False)

    def ports_of(self, database: Database | None = None) -> tuple[int, ...]:
        """Return the ports of all nodes. libpq connects to the one that leads."""
        return self.servers

    def find_detached(self) -> list[psutil.Process]:
        """Return the processes of the server, which outlive their Patroni."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            if server.name() == "postgres" and Path(server.cwd()) == self.data:
                return find_family(server)
        return []


def plan_patroni(
    name: str,
    ports: Ports,
    members: Mapping[str, Sequence[str]],
    image: str,
    run_dir: Path,
    password: str,
    databases: tuple[Database, ...],
    archive: str = "",
) -> Patroni:
    """Return the node `name`. `members` has the names of all nodes of `postgres` and of `etcd`.

    The leader copies each finished segment of its log to the folder `archive`, if one is given. Raises StackError
    without Patroni.
    """
    if problem := find_problem():
        raise StackError(problem)
    own, home, binaries = dict(ports[name]), run_dir / "postgres" / name, find_binaries(image)
    data, config = home / "data", home / "patroni.json"
    folder = Path(archive).resolve() if archive else None
    description = {
        "scope": SCOPE,
        "name": name,
        "restapi": {
            **_listen(own[REST]),
            "authentication": {"username": SUPERUSER, "password": password},
        },
        "etcd3": {"hosts": [f"{HOST}:{ports[each][CLIENTS]}" for each in members["etcd"]]},
        "bootstrap": {
            "dcs": {**DYNAMIC, "postgresql": {"use_pg_rewind": True, "parameters": CLUSTER_SETTINGS}},
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}],
            **_start_from_backup(home.parent, data),
        },
        "postgresql": {
            **_listen(own[SQL]),
            "data_dir": str(data),
            "bin_dir": str(binaries),
            "pgpass": str(home / "pgpass"),
            "authentication": {
                "superuser": {"username": SUPERUSER, "password": password},
                "replication": {"username": REPLICATOR, "password": password},
            },
            # If the leader dies while an old one copies from it, the data of the old one is of no use. It begins again.
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
            "basebackup": {"checkpoint": "fast"},  # else a new follower waits for the next checkpoint, minutes later
            "pg_hba": [f"host {database} all {HOST}/32 scram-sha-256" for database in ("all", "replication")],
            "parameters": {
                **{setting: value for setting, value in SETTINGS.items() if setting not in _CONTROLLED},
                **NODE_SETTINGS,
                **archive_settings(folder),
            },
        },
    }
    return Patroni(
        name=name,
        argv=tuple(unprivileged_command([sys.executable, "-m", "patroni", str(config)], data, binaries)),
        env={"HOME": str(home)},  # libpq looks for files there
        ports=own,
        probe=(own[REST], "/health"),
        needs=tuple(members["etcd"]),
        binaries=binaries,
        data=data,
        password=password,
        databases=databases,
        archive=folder,
        config=config,
        description=description,
        servers=tuple(ports[each][SQL] for each in members["postgres"]),
    )


_CONTROLLED = ("listen_addresses", *CLUSTER_SETTINGS)  # by Patroni, the same on all nodes


def find_backup(servers: Path) -> Path | None:
    """Return the restored data in the folder of all servers, until a leader has started from it. Otherwise None."""
    restored = servers / "data"
    return restored if (restored / RECOVERY).exists() else None


def _start_from_backup(servers: Path, data: Path) -> dict[str, Any]:
    """Return the settings with which the node that comes first starts from a restored backup, if there is one."""
    backup = find_backup(servers)
    if backup is None:
        return {}
    copy = shlex.join(["cp", "-aT", str(backup), str(data)])
    return {"method": "backup", "backup": {"command": copy, "no_params": True, "keep_existing_recovery_conf": True}}


def find_problem() -> str | None:
    """Return the reason why this machine cannot run Patroni, or None."""
    return None if find_spec("patroni") else "Patroni is not installed: run `make setup`"


def _listen(port: int) -> dict[str, str]:
    return {"listen": f"{HOST}:{port}", "connect_address": f"{HOST}:{port}"}
