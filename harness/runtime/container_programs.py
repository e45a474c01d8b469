"""The programs that differ in containers: the five database servers, the broker and the gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from harness.runtime import container_engine
from harness.runtime.compose import Service
from harness.runtime.gateway import RENDERER, STATUS
from harness.runtime.postgres import SUPERUSER, Database, Postgres, database_of, make_dsn
from harness.runtime.process_plan import list_databases, list_needs
from harness.runtime.program import Ports, Program, native_environment, plan_web
from harness.runtime.rabbitmq import RabbitMQ

BROKER_PORTS = (5672, 15672)
OPEN_SUPERUSER = r"""
\getenv password POSTGRES_PASSWORD
SET ROLE NONE;
ALTER ROLE CURRENT_USER PASSWORD :'password';
ALTER ROLE CURRENT_USER IN DATABASE :"DBNAME" RESET role;
"""
REGISTRY = "cat /var/lib/rabbitmq/mnesia/*/quorum/*/names.dets"


def ports_of(service: Service) -> tuple[int, ...]:
    """Return the ports that the container publishes, the main one first."""
    return BROKER_PORTS if service.kind == "rabbitmq" else service.ports


def plan_programs(
    services: Mapping[str, Service], assigned: Ports, project: container_engine.Project
) -> dict[str, Program]:
    """Return every program of the stack by its name. The database servers count as one program."""
    planned: dict[str, Program] = {"postgres": _postgres(services, assigned, project)}
    for service in services.values():
        needed = list_needs(service, services)
        if service.kind == "rabbitmq":
            planned[service.name] = _rabbitmq(service, assigned, project)
        elif service.kind == "kong":
            planned[service.name] = _gateway(service, services[RENDERER], assigned, needed)
        elif service.kind != "postgres" and service.name != RENDERER:
            planned[service.name] = plan_web(service, assigned, needed)
    return planned


@dataclass
class DatabaseContainers(Postgres):
    """Five servers under one name, because the native stack has one server."""

    own_ports: dict[str, int] = field(default_factory=dict)
    project: container_engine.Project = field(default_factory=lambda: container_engine.Project(Path()))

    def prepare(self, env: Mapping[str, str]) -> None:
        """Do nothing: the image creates the cluster and runs the SQL."""

    def after_ready(self) -> None:
        """Give each superuser a password and its own rights, because tests move the clock as superuser."""
        containers = self.project.ids(database.name.replace("_", "-") for database in self.databases)
        for database, container in zip(self.databases, containers, strict=True):
            psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database.name]
            container_engine.run_command(["docker", "exec", "-i", container, *psql], OPEN_SUPERUSER)

    def is_ready(self) -> bool:
        """Return whether every server accepts connections."""
        try:
            for database in self.databases:
                psycopg2.connect(self.dsn(database.name), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def ports_of(self, database: Database | None = None) -> tuple[int, ...]:
        """Return the published port of the database's server, or of the first server."""
        return (self.own_ports[(database or self.databases[0]).name],)

    def admin_dsn(self, database: str) -> str:
        """Return the DSN of a superuser. `postgres` selects the first server."""
        found = next((each for each in self.databases if each.name == database), self.databases[0])
        return make_dsn(SUPERUSER, found.password, self.ports_of(found), database)


@dataclass
class BrokerContainer(RabbitMQ):
    """The broker, whose user and topology start.sh imports."""

    project: container_engine.Project = field(default_factory=lambda: container_engine.Project(Path()))

    listen_ports = Program.listen_ports  # the published ones: that of the distribution stays in the container

    def prepare(self, env: Mapping[str, str]) -> None:
        """Do nothing: start.sh writes the configuration."""

    def registry(self) -> bytes:
        """Return the registry of quorum queues from the container's disk, or b"" if it does not exist."""
        (container,) = self.project.ids([self.name])
        found = subprocess.run(["docker", "exec", container, "sh", "-c", REGISTRY], capture_output=True, check=False)
        return found.stdout if not found.returncode else b""


def _postgres(
    services: Mapping[str, Service], assigned: Ports, project: container_engine.Project
) -> DatabaseContainers:
    found = tuple(database_of(container, user) for container, user in list_databases(services))
    own = {
        database.name: assigned[container.name][5432]
        for database, (container, _) in zip(found, list_databases(services), strict=True)
    }
    first = next(iter(own.values()))
    return DatabaseContainers(
        "postgres", (), {}, {5432: first}, (first, ""), databases=found, own_ports=own, project=project
    )


def _rabbitmq(service: Service, assigned: Ports, project: container_engine.Project) -> BrokerContainer:
    own, env = dict(assigned[service.name]), service.environment
    user, password = env["RABBITMQ_USER"], env["RABBITMQ_PASS"]
    return BrokerContainer(
        service.name, (), dict(env), own, (own[5672], ""), user=user, password=password, project=project
    )


def _gateway(service: Service, renderer: Service, assigned: Ports, needed: tuple[str, ...]) -> Program:
    own = dict(assigned[service.name])
    env = {**native_environment(renderer, assigned), **native_environment(service, assigned)}
    return Program(service.name, (), env, own, (own[STATUS[0]], STATUS[1]), needed)
