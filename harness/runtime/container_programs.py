"""The programs that are other ones in containers: the five database servers, the broker, the gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from harness.runtime import container_engine
from harness.runtime.compose import Service
from harness.runtime.gateway import RENDERER, STATUS
from harness.runtime.postgres import Database, Postgres, database_of
from harness.runtime.process_plan import list_databases, list_needs
from harness.runtime.program import Ports, Program, native_environment, plan_web
from harness.runtime.rabbitmq import RabbitMQ

BROKER_PORTS = (5672, 15672)
REGISTRY = "cat /var/lib/rabbitmq/mnesia/*/quorum/*/names.dets"


def ports_of(service: Service) -> tuple[int, ...]:
    """The ports that are published here, the main one first."""
    return BROKER_PORTS if service.kind == "rabbitmq" else service.ports


def plan_programs(
    services: Mapping[str, Service], assigned: Ports, project: container_engine.Project
) -> dict[str, Program]:
    """Every program of the stack by its name; the database servers are one."""
    planned: dict[str, Program] = {"postgres": _postgres(services, assigned)}
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
    """The five servers under one name, as they are one natively. Each container's role owns everything in it."""

    own_ports: dict[str, int] = field(default_factory=dict)

    def prepare(self, env: Mapping[str, str]) -> None:
        """The image makes the cluster and runs the SQL."""

    def after_ready(self) -> None:
        """Nothing: a server that listens on TCP has run its SQL."""

    def is_ready(self) -> bool:
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

    project: container_engine.Project = field(default_factory=lambda: container_engine.Project(Path()))

    def prepare(self, env: Mapping[str, str]) -> None:
        """start.sh does it."""

    def registry(self) -> bytes:
        """The registry of quorum queues, as it is on the container's disk; empty while there is none."""
        (container,) = self.project.ids([self.name])
        found = subprocess.run(["docker", "exec", container, "sh", "-c", REGISTRY], capture_output=True, check=False)
        return found.stdout if not found.returncode else b""


def _postgres(services: Mapping[str, Service], assigned: Ports) -> DatabaseContainers:
    found = tuple(database_of(container, user) for container, user in list_databases(services))
    own = {
        database.name: assigned[container.name][5432]
        for database, (container, _) in zip(found, list_databases(services), strict=True)
    }
    first = next(iter(own.values()))
    return DatabaseContainers("postgres", (), {}, {5432: first}, (first, ""), databases=found, own_ports=own)


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
