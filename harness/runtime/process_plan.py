"""Derive the native programs from compose.yaml: their ports, environments and start order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.runtime.compose import Service
from harness.runtime.gateway import RENDERER, plan_gateway
from harness.runtime.ports import claim
from harness.runtime.postgres import plan_postgres
from harness.runtime.program import Ports, Program, plan_web
from harness.runtime.rabbitmq import plan_epmd, plan_rabbitmq
from harness.runtime.web_client import NAME as WEB_CLIENT
from harness.runtime.web_client import plan_web_client

BROKER_PORTS = (5672, 25672, 4369)  # AMQP, distribution, epmd


def native_name(service: Service) -> str:
    """Return the program that replaces a service of compose.yaml. One server replaces all database containers."""
    return "postgres" if service.kind == "postgres" else service.name


def assign_ports(services: Mapping[str, Service]) -> dict[str, dict[int, int]]:
    """Claim a free port of this machine for each port of each service: {service: {port: port here}}."""
    wanted: dict[tuple[str, int], None] = {}
    for service in services.values():
        ports = BROKER_PORTS if service.kind == "rabbitmq" else service.ports
        wanted |= dict.fromkeys((native_name(service), port) for port in ports)
    found = dict(zip(wanted, claim([port for _, port in wanted]), strict=True))
    return {
        service.name: {port: here for (name, port), here in found.items() if name == native_name(service)}
        for service in services.values()
    }


def plan_programs(
    services: Mapping[str, Service], ports: Ports, variables: Mapping[str, str], run_dir: Path
) -> dict[str, Program]:
    """Return every program of the stack by name, dependencies first."""
    planned: dict[str, Program] = {}
    for service in services.values():
        if service.kind == "postgres" and "postgres" not in planned:
            port, password = ports[service.name][5432], variables["POSTGRES_PASS"]
            archive = variables.get("WAL_ARCHIVE", "")
            planned["postgres"] = plan_postgres(list_databases(services), port, run_dir, password, archive)
        elif service.kind == "rabbitmq":
            env, own = service.environment, dict(ports[service.name])
            planned["epmd"] = plan_epmd(own[4369], run_dir)
            planned[service.name] = plan_rabbitmq(own, run_dir, env["RABBITMQ_USER"], env["RABBITMQ_PASS"])
        elif service.kind == "kong":
            needed = list_needs(service, services)
            planned[service.name] = plan_gateway(service, services[RENDERER], ports, needed, run_dir)
        elif service.name == WEB_CLIENT:
            planned[service.name] = plan_web_client(service, ports, list_needs(service, services))
        elif service.kind == "python" and service.name != RENDERER:
            planned[service.name] = plan_web(service, ports, list_needs(service, services))
    return planned


def list_needs(service: Service, services: Mapping[str, Service]) -> tuple[str, ...]:
    """Return the programs that must be ready before `service` starts."""
    names = (name for name in service.depends_on if name != RENDERER)
    return tuple(dict.fromkeys(native_name(services[name]) for name in names))


def needs_broker(services: Mapping[str, Service], names: Iterable[str]) -> bool:
    """Return whether one of `names`, or a service that it depends on, is RabbitMQ."""
    found = [services[name] for name in names if name in services]
    return any(each.kind == "rabbitmq" or needs_broker(services, each.depends_on) for each in found)


def list_databases(services: Mapping[str, Service]) -> list[tuple[Service, str]]:
    """Return each database container with the service that connects to it."""
    users = {service.environment.get("DB_HOST"): service.name for service in services.values()}
    return [(service, users.get(service.name, "")) for service in services.values() if service.kind == "postgres"]


def start_levels(planned: Mapping[str, Program], names: Iterable[str]) -> list[list[str]]:
    """Group `names` by start order. Each level needs only earlier levels."""
    depths = {name: _depth(planned, name) for name in names}
    return [[name for name in depths if depths[name] == level] for level in sorted(set(depths.values()))]


def _depth(planned: Mapping[str, Program], name: str) -> int:
    """Return the length of the longest dependency chain of `name`."""
    return max((1 + _depth(planned, needed) for needed in planned[name].needs if needed in planned), default=0)


def add_needs(planned: Mapping[str, Program], names: Iterable[str]) -> list[str]:
    """Return `names` and all their dependencies, dependencies first."""
    chosen: dict[str, None] = {}
    for name in names:
        chosen |= dict.fromkeys([*add_needs(planned, planned[name].needs), name])
    return list(chosen)
