"""The cluster: three nodes each of etcd, PostgreSQL under Patroni, and RabbitMQ, and two processes of each service.

It is the twin of deploy/k8s on one machine. `expand` derives it from compose.yaml, which stays the only description.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

from harness.errors import StackError
from harness.runtime import compose, etcd, packages, patroni, ports, process_plan
from harness.runtime.compose import Service
from harness.runtime.postgres import Postgres, database_of
from harness.runtime.program import ADDRESS, Program
from harness.runtime.rabbitmq import RabbitMQ, plan_epmd
from harness.runtime.rabbitmq_cluster import plan_node
from harness.runtime.run_directory import RunDir
from harness.runtime.stack import COMPOSE, Stack

NODES = 3
GROUPS = {  # the nodes that replace a program of the native stack, and those of etcd
    "etcd": tuple(f"etcd-{number}" for number in range(1, NODES + 1)),
    "postgres": tuple(f"patroni-{number}" for number in range(1, NODES + 1)),
    "rabbitmq": tuple(f"rabbitmq-{number}" for number in range(1, NODES + 1)),
}
PORTS = {"etcd": (etcd.CLIENTS, etcd.PEERS), "postgres": (patroni.SQL, patroni.REST), "rabbitmq": (5672, 25672)}
ETCD_PORTS = "etcd/ports.json"
EPMD = "epmd"
MOVED = {"user-service:5000": "api-gateway:8000"}  # Stripe calls the gateway, which has both processes
_MOVED = re.compile("|".join(MOVED))


class ClusterStack(Stack):
    """All processes of one run directory. `postgres`, `rabbitmq` and `etcd` name all three nodes of each."""

    kind = "ha"

    @classmethod
    def load_services(cls, values: Mapping[str, str]) -> dict[str, Service]:
        """Read compose.yaml and return the services of the cluster."""
        return expand(compose.load(COMPOSE, values))

    @classmethod
    def assign_ports(cls, services: Mapping[str, Service], run_dir: RunDir) -> dict[str, dict[int, int]]:
        """Claim a free port for each port of each service. The nodes of etcd keep those of the last start.

        Raises StackError if another process has one of these.
        """
        known = _read_etcd_ports(run_dir)
        wanted = [(service.name, port) for service in services.values() for port in service.ports]
        preferred = [known.get(name, {}).get(str(port), port) for name, port in wanted]
        assigned: dict[str, dict[int, int]] = {name: {} for name in services}
        for (name, port), here in zip(wanted, ports.claim(preferred), strict=True):
            assigned[name][port] = here
        own = {name: {str(port): here for port, here in assigned[name].items()} for name in GROUPS["etcd"]}
        if known and known != own:
            raise StackError(f"the data of etcd requires its ports {known}, and another process has one of them")
        (run_dir.path / "etcd").mkdir(exist_ok=True)
        run_dir.write_file(ETCD_PORTS, json.dumps(own))
        return assigned

    @classmethod
    def install_missing(cls, services: Mapping[str, Service], only: Iterable[str] | None) -> None:
        """Install RabbitMQ and etcd. Raises StackError if this machine cannot run them or Patroni."""
        if problem := find_problem():
            raise StackError(problem)
        packages.ensure_broker()
        packages.ensure_etcd()

    def members(self, name: str) -> tuple[str, ...]:
        """Return the programs of a service: its nodes, or both its processes."""
        return GROUPS.get(name) or (*super().members(name), *self.replicas(name))

    def start(self, name: str) -> None:
        """Start a program, or all nodes of a group at once, because the first of them waits for the others."""
        self._for_each(name, super().start)

    def stop(self, name: str) -> None:
        """Stop a program, or all nodes of a group."""
        self._for_each(name, super().stop)

    def kill(self, name: str) -> None:
        """Kill a program, or all nodes of a group."""
        self._for_each(name, super().kill)

    def url(self, name: str) -> str:
        """Return the address of a program. That of `rabbitmq` is the first node that runs."""
        if name == "postgres":
            return self.admin_dsn("postgres")
        if name == "rabbitmq":
            nodes = [cast(RabbitMQ, self.program(node)) for node in GROUPS[name]]
            return next((node for node in nodes if node.is_ready()), nodes[0]).url
        return self.program(name).url

    def _prepare_start(self, names: Iterable[str], build: bool = False) -> None:
        """Delete what an interrupted start from a backup left. Its nodes would continue without the archive."""
        if build and patroni.find_backup(self.run_dir.path / "postgres"):
            nodes = [self.run_dir.path / group / name for group in ("postgres", "etcd") for name in GROUPS[group]]
            for left in (path for path in nodes if path.exists()):
                shutil.rmtree(left)

    @property
    def _postgres(self) -> Postgres:
        return cast(Postgres, self.program(GROUPS["postgres"][0]))

    def _plan(self, values: Mapping[str, str], run_dir: Path) -> dict[str, Program]:
        pairs = process_plan.list_databases(compose.load(COMPOSE, values))
        databases = tuple(database_of(container, user) for container, user in pairs)
        image, password, archive = pairs[0][0].image, values["POSTGRES_PASS"], values.get("WAL_ARCHIVE", "")
        user, secret = values["RABBITMQ_USER"], values["RABBITMQ_PASS"]
        planned: dict[str, Program] = {}
        for name in GROUPS["etcd"]:
            planned[name] = etcd.plan_etcd(name, GROUPS["etcd"], self._ports, run_dir)
        for name in GROUPS["postgres"]:
            planned[name] = patroni.plan_patroni(
                name, self._ports, GROUPS, image, run_dir, password, databases, archive
            )
        planned[EPMD] = plan_epmd(self._ports[EPMD][4369], run_dir)
        for name in GROUPS["rabbitmq"]:
            own = {**self._ports[name], **self._ports[EPMD]}
            planned[name] = plan_node(name, GROUPS["rabbitmq"], own, run_dir, user, secret)
        return {**planned, **process_plan.plan_programs(self._services, self._ports, values, run_dir)}

    def _for_each(self, name: str, act: Callable[[str], None]) -> None:
        names = GROUPS.get(name, (name,))
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(act, names))


def find_problem() -> str | None:
    """Return the reason why this machine cannot run a cluster, or None."""
    return patroni.find_problem() or packages.find_etcd_problem()


def expand(services: Mapping[str, Service]) -> dict[str, Service]:
    """Return the services of the cluster: nodes instead of databases and broker, and two processes of each service."""
    members = {service.name: _members(service) for service in services.values()}
    nodes = [
        Service(name, f"{kind}-node", (), {}, PORTS[kind], None, (), ())
        for kind, names in GROUPS.items()
        for name in names
    ]
    nodes.append(Service(EPMD, f"{EPMD}-node", (), {}, (4369,), None, (), ()))
    found = [each for service in services.values() for each in _expand(service, members)]
    return {each.name: each for each in (*nodes, *found)}


def _members(service: Service) -> tuple[str, ...]:
    if service.kind in GROUPS:
        return GROUPS[service.kind]
    return (service.name, f"{service.name}-2") if "DB_HOST" in service.environment else (service.name,)


def _expand(service: Service, members: Mapping[str, tuple[str, ...]]) -> list[Service]:
    """Return the processes of a service, with the addresses of all members of the others. Nodes are no services."""
    if service.kind in GROUPS:
        return []
    needs = tuple(dict.fromkeys(member for name in service.depends_on for member in members[name]))
    changed = replace(service, depends_on=needs, environment=_list_members(service, members))
    first, *others = (replace(changed, name=name) for name in members[service.name])
    return [first, *(replace(other, replica_of=first.name) for other in others)]


def _list_members(service: Service, members: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the environment with the names of all members of each service, separated by commas.

    A service and the gateway take a list of addresses. A fake takes one address only.
    """
    environment = service.environment
    if "DB_HOST" not in environment and "ORCHESTRATOR_URL" not in environment:
        return {name: _MOVED.sub(lambda found: MOVED[found[0]], value) for name, value in environment.items()}

    def list_addresses(found: re.Match[str]) -> str:
        return ",".join(f"{name}:{found['port']}" for name in members.get(found["host"], (found["host"],)))

    listed = {name: ADDRESS.sub(list_addresses, value) for name, value in environment.items()}
    for name, host in environment.items():
        if name.endswith("_HOST") and host in members:
            port = name.removesuffix("_HOST") + "_PORT"
            listed |= {name: ",".join(members[host]), port: ",".join([environment[port]] * len(members[host]))}
    return listed


def _read_etcd_ports(run_dir: RunDir) -> dict[str, dict[str, int]]:
    """Return the ports that the data of etcd requires, or {} without data. A start from a backup deletes these."""
    file = run_dir.path / ETCD_PORTS
    is_needed = file.exists() and not patroni.find_backup(run_dir.path / "postgres")
    return cast(dict[str, dict[str, int]], json.loads(file.read_text())) if is_needed else {}
