"""The stack in containers, behind the same interface: compose makes them from compose.yaml, the harness drives them.

Containers are made from a copy of compose.yaml in the run directory, in which every port is published on the loopback,
order, health and restarts are the harness's own, and replicas and laid-over environments are written out.
"""

from __future__ import annotations

import copy
import functools
import subprocess
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import yaml

from harness import engine, ports
from harness.cleanup import take_down
from harness.compose import ROOT, Service, interpolate
from harness.gateway import RENDERER, STATUS
from harness.plan import databases, native_name, needs
from harness.postgres import Database, Postgres, describe
from harness.process import Identity
from harness.program import Ports, Program, native_environment, web
from harness.rabbitmq import RabbitMQ
from harness.rundir import Record
from harness.stack import COMPOSE, Stack

OFFLINE = ROOT / "compose.offline.yaml"
GATEWAY = "api-gateway"
BROKER_PORTS = (5672, 15672)
REGISTRY = "cat /var/lib/rabbitmq/mnesia/*/quorum/*/names.dets"
SUPERVISED = {"restart": "no", "healthcheck": {"disable": True}}


@dataclass
class DatabaseContainers(Postgres):
    """The five servers under one name, as they are one natively. Each container's role owns everything in it."""

    own_ports: dict[str, int] = field(default_factory=dict)

    def prepare(self, env: Mapping[str, str]) -> None:
        """The image makes the cluster and runs the SQL."""

    def after_ready(self) -> None:
        """Nothing: a server that listens on TCP has run its SQL."""

    def ready(self) -> bool:
        """Whether every server takes connections."""
        try:
            for database in self.databases:
                psycopg2.connect(self.dsn(database.name), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def port_of(self, database: Database) -> int:
        """Where a database's own server listens here."""
        return self.own_ports[database.name]

    def admin_dsn(self, database: str) -> str:
        """The DSN of the role that owns the whole server; `postgres` is any of them."""
        return self.dsn(self.databases[0].name if database == "postgres" else database)


@dataclass
class BrokerContainer(RabbitMQ):
    """The broker; start.sh imports its user and topology."""

    project: engine.Project = field(default_factory=lambda: engine.Project(Path()))

    def prepare(self, env: Mapping[str, str]) -> None:
        """start.sh does it."""

    def registry(self) -> bytes:
        """The registry of quorum queues, as it is on the container's disk; empty while there is none."""
        (container,) = self.project.ids([self.name])
        found = subprocess.run(["docker", "exec", container, "sh", "-c", REGISTRY], capture_output=True, check=False)
        return found.stdout if not found.returncode else b""


class ContainerStack(Stack):
    """All containers of one run directory. The engine has to run on this machine: its processes are looked at."""

    kind = "docker"

    def peers(self, name: str, port: int) -> str:
        """Where the other containers reach `name` and its replicas: the name has every address."""
        return f"{name}:{port}"

    def down(self, volumes: bool = False) -> None:
        """End and remove every container; `volumes` removes their data too. What they said stays in `logs`."""
        self._cancelled.set()
        for name in self.names:
            if self.run_dir.record(name).pid:
                self.log_path(name)
        take_down(self.run_dir, volumes)
        ports.release([here for own in self._ports.values() for here in own.values()])

    def stop(self, name: str) -> None:
        """End `name` as production would, and wait until it is gone."""
        self._end(name, "stopped", "stop")

    def kill(self, name: str) -> None:
        """SIGKILL `name` and wait until it is gone."""
        self._end(name, "killed", "kill")

    def log_path(self, name: str) -> Path:
        """A file with what `name` has said until now, in containers that were replaced as well."""
        path, known = super().log_path(name), self._project.known()
        with path.open("wb") as log:
            if (earlier := path.with_suffix(".earlier")).exists():
                log.write(earlier.read_bytes())
            log.flush()
            for container in (known[each] for each in self._containers(name) if each in known):
                subprocess.run(["docker", "logs", container], stdout=log, stderr=subprocess.STDOUT, check=True)
        return path

    def log_command(self, name: str, follow: bool) -> list[str]:
        """The command that prints the log of `name`."""
        return self._project.command("logs", "--no-color", *(["-f"] if follow else []), *self._containers(name))

    # ── Inside ──

    @property
    def _project(self) -> engine.Project:
        return engine.Project.of(self.run_dir.path)

    @classmethod
    def _assigned(cls, services: Mapping[str, Service]) -> dict[str, dict[int, int]]:
        wanted = [(s.name, port) for s in services.values() for port in _ports(s)]
        assigned: dict[str, dict[int, int]] = {name: {} for name in services}
        for (name, port), here in zip(wanted, ports.claim([port for _, port in wanted]), strict=True):
            assigned[name][port] = here
        return assigned

    def _planned(self, values: Mapping[str, str], run_dir: Path) -> dict[str, Program]:
        project = engine.Project.of(run_dir)
        planned: dict[str, Program] = {"postgres": _postgres(self._services, self._ports)}
        for service in self._services.values():
            needed = needs(service, self._services)
            if service.kind == "rabbitmq":
                planned[service.name] = _rabbitmq(service, self._ports, project)
            elif service.kind == "kong":
                planned[service.name] = _gateway(service, self._services[RENDERER], self._ports, needed)
            elif service.kind != "postgres" and service.name != RENDERER:
                planned[service.name] = web(service, self._ports, needed)
        return planned

    def _provide(self, names: Iterable[str], build: bool = False) -> None:
        """Have compose make the containers of `names`, anew where what they are made from has changed."""
        wanted = [container for name in names for container in self._containers(name)]
        wanted += [RENDERER] if GATEWAY in wanted else []
        self._say("compose", f"{'building and ' if build else ''}making {', '.join(wanted)}")
        self.run_dir.keep(engine.FILE, yaml.safe_dump(self._document(), sort_keys=False))
        if build:
            built = [name for name in wanted if "build" in self._raw(name)]
            self._project.compose("build", *built)
        self._project.compose("up", "--no-start", "--no-deps", "--no-build", *wanted)

    def _relaid(self, name: str) -> None:
        """The environment of `name` has changed: it gets a new container, and its log goes on."""
        path = self.log_path(name)
        path.replace(path.with_suffix(".earlier"))
        self._provide([name])

    def _launch(self, name: str) -> Identity:
        if name == GATEWAY:
            self._render()
        containers = self._project.ids(self._containers(name))
        engine.docker("start", *containers)
        pid = int(engine.docker("inspect", "--format", "{{.State.Pid}}", containers[0]))
        try:
            return Identity.of(pid)
        except psutil.NoSuchProcess:  # it has ended already, which is seen when it is waited for
            return Identity(pid, time.time())

    def _render(self) -> None:
        """Run the renderer to its end. Raises StackError with its one line."""
        (container,) = self._project.ids([RENDERER])
        engine.docker("start", "--attach", container)

    def _end(self, name: str, state: str, how: str) -> None:
        containers = self._project.ids(self._containers(name))
        self.run_dir.write(self._marked(name, state))
        with ThreadPoolExecutor(len(containers)) as pool:
            list(pool.map(lambda container: _ended(container, how), containers))
        self.log_path(name)  # what it said is there without it
        self._say(name, state)

    def _containers(self, name: str) -> tuple[str, ...]:
        """The containers that stand for a program: all database servers are one."""
        self.program(name)
        return tuple(n for n, service in self._services.items() if native_name(service) == name) or (name,)

    def _document(self) -> dict[str, Any]:
        """compose.yaml as these containers are made from it, every variable put in."""
        records = {record.name: record for record in self.run_dir.records()}
        names = [*self._services, *(record.name for record in records.values() if record.replica_of)]
        return {
            "volumes": _described(COMPOSE)["volumes"],
            "services": {name: self._container(name, records) for name in names},
        }

    def _container(self, name: str, records: Mapping[str, Record]) -> dict[str, Any]:
        """One service as compose has it, with what is different here."""
        described = self._raw(name)
        record = records.get(GATEWAY if name == RENDERER else name, Record(name))
        own = {int(p): here for p, here in record.ports.items()} or self._ports[name]
        described = _resolved(described, self._values) | SUPERVISED
        described["environment"] |= {variable: _escaped(value) for variable, value in record.overrides.items()}
        described["ports"] = [f"{ports.HOST}:{here}:{port}" for port, here in own.items()]
        if record.replica_of:
            described["networks"] = {"default": {"aliases": [record.replica_of]}}
        return {key: value for key, value in described.items() if key not in ("depends_on", "expose")}

    def _raw(self, name: str) -> Any:
        """The service as the files have it; the gateway is its stand-in where no Kong image is."""
        original = self.run_dir.record(name).replica_of or name
        found = _described(COMPOSE)["services"][original]
        if original != GATEWAY:
            return found
        if not engine.has_image(found["image"]):
            laid = _described(OFFLINE)["services"][GATEWAY]
            found |= laid | {"environment": found["environment"] | laid["environment"]}
        found["environment"]["KONG_STATUS_LISTEN"] = f"0.0.0.0:{STATUS[0]}"
        return found


def _ended(container: str, how: str) -> None:
    subprocess.run(["docker", how, container], capture_output=True, check=False)  # it may have ended by itself
    engine.docker("wait", container)


def _described(path: Path) -> Any:
    return copy.deepcopy(_parsed(path))


_parsed = functools.cache(lambda path: yaml.safe_load(path.read_text()))


def _ports(service: Service) -> tuple[int, ...]:
    return BROKER_PORTS if service.kind == "rabbitmq" else service.ports


def _postgres(services: Mapping[str, Service], assigned: Ports) -> DatabaseContainers:
    found = tuple(describe(container, user) for container, user in databases(services))
    own = {
        database.name: assigned[container.name][5432]
        for database, (container, _) in zip(found, databases(services), strict=True)
    }
    first = next(iter(own.values()))
    return DatabaseContainers("postgres", (), {}, {5432: first}, (first, ""), databases=found, own_ports=own)


def _rabbitmq(service: Service, assigned: Ports, project: engine.Project) -> BrokerContainer:
    own, env = dict(assigned[service.name]), service.environment
    user, password = env["RABBITMQ_USER"], env["RABBITMQ_PASS"]
    return BrokerContainer(
        service.name, (), dict(env), own, (own[5672], ""), user=user, password=password, project=project
    )


def _gateway(service: Service, renderer: Service, assigned: Ports, needed: tuple[str, ...]) -> Program:
    own = dict(assigned[service.name])
    env = {**native_environment(renderer, assigned), **native_environment(service, assigned)}
    return Program(service.name, (), env, own, (own[STATUS[0]], STATUS[1]), needed)


def _resolved(raw: Any, values: Mapping[str, str]) -> Any:
    """`raw` with every variable put in, so that nothing of the caller's own environment can get in."""
    if isinstance(raw, dict):
        return {key: _resolved(value, values) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_resolved(value, values) for value in raw]
    return _escaped(interpolate(raw, values)) if isinstance(raw, str) else raw


def _escaped(text: str) -> str:
    return text.replace("$", "$$")
