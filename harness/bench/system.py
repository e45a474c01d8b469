"""The system that the bench measures: the stack of this checkout, or that of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import psutil

from harness.errors import StackError
from harness.runtime.run_directory import RunDir

NOT_MEASURED = ("fake-", "api-gateway", "web-client", "epmd")  # stand-ins, so their cost is not the system's
ORCHESTRATOR, INVENTORY, EVENT, USER = "orchestrator-service", "inventory-service", "event-service", "user-service"
GATEWAY = "api-gateway"
PORTS = {ORCHESTRATOR: 5003, INVENTORY: 50051, EVENT: 5002, USER: 5000}  # the port that the load calls


class System(Protocol):
    """A running system: a `Stack`, or the `OtherSystem` of another checkout."""

    @property
    def run_dir(self) -> RunDir:
        """The run directory, with the logs and the identities of the processes."""

    @property
    def names(self) -> Sequence[str]:
        """All programs, running or not."""

    def address(self, name: str, port: int) -> str:
        """Return the local `host:port` of a port in compose.yaml."""

    def url(self, name: str) -> str:
        """Return the address of a program, with credentials."""

    def env(self, name: str) -> Mapping[str, str]:
        """Return the variables of a program, secrets included."""

    def admin_dsn(self, database: str) -> str:
        """Return a superuser's DSN for `database`."""


def find_processes(system: System, but: tuple[str, ...] = NOT_MEASURED) -> dict[str, psutil.Process]:
    """Return the processes of our services, PostgreSQL and RabbitMQ. Raises StackError when one has ended.

    `but` has the first letters of the programs to leave out.
    """
    records = {name: system.run_dir.read_record(name) for name in system.names if not name.startswith(but)}
    found = {name: record.identity.find() for name, record in records.items() if record.state != "stopped"}
    running = {name: process for name, process in found.items() if process}
    if missing := found.keys() - running.keys():
        raise StackError(f"not running: {', '.join(sorted(missing))} (logs: {system.run_dir.logs})")
    return running


def find_replicas(system: System, service: str) -> list[str]:
    """Return the names of the processes of a service that run."""
    return [name for name in find_processes(system) if name.startswith(service)]


def join_addresses(system: System, service: str, processes: int = 1) -> str:
    """Return the addresses of the first `processes` replicas of a service, separated by commas."""
    names = find_replicas(system, service)[:processes]
    return ",".join(system.address(name, PORTS[service]) for name in names)
