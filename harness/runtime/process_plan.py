"""From compose.yaml to what runs natively: which programs, where, and who needs whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.runtime.compose import Service
from harness.runtime.gateway import RENDERER, plan_gateway
from harness.runtime.ports import claim
from harness.runtime.postgres import plan_postgres
from harness.runtime.program import Ports, Program, plan_web
from harness.runtime.rabbitmq import plan_epmd, plan_rabbitmq

BROKER_PORTS = (5672, 25672, 4369)  # AMQP, distribution, epmd


def native_name(service: Service) -> str:
    """The program that stands for a service of compose.yaml: all database containers are one server."""
    return "postgres" if service.kind == "postgres" else service.name


def assign_ports(services: Mapping[str, Service]) -> dict[str, dict[int, int]]:
    """Where each port of compose.yaml is here; every service gets its ports, whether it will be started or not."""
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
    """Every program of the stack by name, dependencies first."""
    planned: dict[str, Program] = {}
    for service in services.values():
        if service.kind == "postgres" and "postgres" not in planned:
            port, password = ports[service.name][5432], variables["POSTGRES_PASS"]
            planned["postgres"] = plan_postgres(list_databases(services), port, run_dir, password)
        elif service.kind == "rabbitmq":
            env, own = service.environment, dict(ports[service.name])
            planned["epmd"] = plan_epmd(own[4369], run_dir)
            planned[service.name] = plan_rabbitmq(own, run_dir, env["RABBITMQ_USER"], env["RABBITMQ_PASS"])
        elif service.kind == "kong":
            needed = list_needs(service, services)
            planned[service.name] = plan_gateway(service, services[RENDERER], ports, needed, run_dir)
        elif service.kind != "postgres" and service.name != RENDERER:
            planned[service.name] = plan_web(service, ports, list_needs(service, services))
    return planned


def list_needs(service: Service, services: Mapping[str, Service]) -> tuple[str, ...]:
    """The programs that have to be ready before `service` starts."""
    names = (name for name in service.depends_on if name != RENDERER)
    return tuple(dict.fromkeys(native_name(services[name]) for name in names))


def needs_broker(services: Mapping[str, Service], names: Iterable[str]) -> bool:
    """Return whether one of `names`, or a service that it depends on, is RabbitMQ."""
    found = [services[name] for name in names if name in services]
    return any(each.kind == "rabbitmq" or needs_broker(services, each.depends_on) for each in found)


def list_databases(services: Mapping[str, Service]) -> list[tuple[Service, str]]:
    """Each database container with the service that connects to it."""
    users = {service.environment.get("DB_HOST"): service.name for service in services.values()}
    return [(service, users.get(service.name, "")) for service in services.values() if service.kind == "postgres"]


def start_levels(planned: Mapping[str, Program], names: Iterable[str]) -> list[list[str]]:
    """`names` in the order in which they may be started: each level needs only levels before it."""
    depths = {name: _depth(planned, name) for name in names}
    return [[name for name in depths if depths[name] == level] for level in sorted(set(depths.values()))]


def _depth(planned: Mapping[str, Program], name: str) -> int:
    """How many programs in a row have to be ready before `name` can start."""
    return max((1 + _depth(planned, needed) for needed in planned[name].needs if needed in planned), default=0)


def add_needs(planned: Mapping[str, Program], names: Iterable[str]) -> list[str]:
    """`names` and all that they need, dependencies first."""
    chosen: dict[str, None] = {}
    for name in names:
        chosen |= dict.fromkeys([*add_needs(planned, planned[name].needs), name])
    return list(chosen)
