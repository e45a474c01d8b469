"""The running system: start it, read its addresses, and stop, kill and restart its processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from harness.errors import StackError
from harness.runtime import compose, ports
from harness.runtime.cleanup import take_down
from harness.runtime.postgres import Postgres
from harness.runtime.process_plan import add_needs, list_needs, start_levels
from harness.runtime.program import Program, plan_web
from harness.runtime.run_directory import Record, RunDir
from harness.runtime.supervisor import Supervisor

COMPOSE = compose.ROOT / "compose.yaml"


class Stack(Supervisor):
    """All processes of one run directory. Use `harness.runtime.up` or `attach`, which choose native or containers."""

    kind: str

    def __init__(
        self, run_dir: RunDir, assigned: dict[str, dict[int, int]], values: Mapping[str, str], quiet: bool = False
    ) -> None:
        self._ports = assigned
        self._values = values
        self._services = self.load_services(values)
        super().__init__(run_dir, self._plan(values, run_dir.path), quiet)
        for record in run_dir.read_records():
            self._load_replica(record)

    def start_with_needs(self, only: Iterable[str] | None) -> None:
        """Start everything, or `only` the named services with their dependencies, and wait until it is ready.

        Raises StackError and leaves nothing running.
        """
        try:
            wanted = [each for name in only or self.programs for each in self.members(name)]
            names = add_needs(self.programs, wanted)
            self._prepare_start(names, build=True)
            self.start_all(names)
            self.wait_until_durable(names)
        except BaseException:
            self.down()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def down(self, volumes: bool = False) -> None:
        """Stop every process, each before its dependencies. `volumes` deletes their data, too."""
        self._cancel()
        for level in reversed(start_levels(self.programs, self.programs)):
            running = [name for name in level if self.run_dir.read_record(name).is_alive]
            with ThreadPoolExecutor(len(running) or 1) as pool:
                list(pool.map(self.stop, running))
        take_down(self.run_dir, volumes)
        ports.release([here for own in self._ports.values() for here in own.values()])

    def start_replica(self, name: str, env: Mapping[str, str] | None = None) -> str:
        """Start one more process of a service on its own ports and return its name. `env` changes its environment.

        Raises StackError for a service that cannot be replicated.
        """
        service = self._services.get(name)
        if service is None or name not in self.programs or service.kind not in ("python", "kong"):
            raise StackError(f"{name!r} cannot be replicated: choose a service other than PostgreSQL and RabbitMQ")
        number = 2 + len(self.replicas(name))
        own = dict(zip(service.ports, ports.claim(list(service.ports)), strict=True))
        mapped = {str(port): here for port, here in own.items()}
        record = Record(f"{name}-{number}", overrides=dict(env or {}), replica_of=name, ports=mapped)
        self.run_dir.write_record(record)
        self._load_replica(record)
        self._prepare_start([record.name])
        self.start(record.name)
        return record.name

    def replicas(self, name: str) -> list[str]:
        """Return the names of a service's replicas, running or not."""
        planned = [each.name for each in self._services.values() if each.replica_of == name]
        return planned + [record.name for record in self.run_dir.read_records() if record.replica_of == name]

    def members(self, name: str) -> tuple[str, ...]:
        """Return the programs that `name` selects. Raises StackError for an unknown name."""
        return (self.program(name).name,)

    # ── addresses ──

    def url(self, name: str) -> str:
        """Return the HTTP address of a service, the AMQP URL of RabbitMQ, or the superuser DSN of PostgreSQL."""
        program = self.program(name)
        return program.admin_dsn("postgres") if isinstance(program, Postgres) else program.url

    def address(self, name: str, port: int) -> str:
        """Return the local `host:port` of a port in compose.yaml, for example ("inventory-service", 50051)."""
        return f"{ports.HOST}:{self.program(name).ports[port]}"

    def peers(self, name: str, port: int) -> str:
        """Return the `host:port` of `name` and its replicas, separated by commas, for other processes of the stack."""
        return ",".join(self.address(each, port) for each in (name, *self.replicas(name)))

    def dsn(self, name: str) -> str:
        """Return the DSN of a service's role. `name` is the service, its database container or the database."""
        return self._postgres.dsn(name)

    def dsns(self) -> dict[str, str]:
        """Return the DSN of each database's role by database name."""
        return {database.name: self.dsn(database.name) for database in self._postgres.databases}

    def ports_of(self, name: str) -> dict[int, int]:
        """Return {port in compose.yaml: port of this machine}, the main port first."""
        return dict(self.program(name).ports)

    def admin_dsn(self, database: str) -> str:
        """Return a superuser's DSN for `database`."""
        return self._postgres.admin_dsn(database)

    # ── for the kinds of stack ──

    @classmethod
    def load_services(cls, values: Mapping[str, str]) -> dict[str, compose.Service]:
        """Read the services of compose.yaml, as this kind of stack runs them."""
        return compose.load(COMPOSE, values)

    @classmethod
    def assign_ports(cls, services: Mapping[str, compose.Service], run_dir: RunDir) -> dict[str, dict[int, int]]:
        """Claim a free port of this machine for each port of each service: {service: {port: port here}}."""
        raise NotImplementedError

    @classmethod
    def install_missing(cls, services: Mapping[str, compose.Service], only: Iterable[str] | None) -> None:
        """Install what this machine lacks for all services, or for `only` these. Raises StackError if it cannot."""

    def _plan(self, values: Mapping[str, str], run_dir: Path) -> dict[str, Program]:
        raise NotImplementedError

    def _prepare_start(self, names: Iterable[str], build: bool = False) -> None:
        """Prepare the start of `names`, for example create their containers."""

    @property
    def _postgres(self) -> Postgres:
        return cast(Postgres, self.program("postgres"))

    def _load_replica(self, record: Record) -> None:
        """Add the program of a replica that was started earlier, perhaps by another process."""
        if record.replica_of:
            service = self._services[record.replica_of]
            own = {service.name: {int(port): here for port, here in record.ports.items()}}
            program = plan_web(service, {**self._ports, **own}, list_needs(service, self._services))
            self.programs[record.name] = replace(program, name=record.name)
