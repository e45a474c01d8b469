"""The cluster of a test: finds its leaders, and changes them."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import urllib3

from harness import runtime
from harness.errors import StackError
from harness.runtime import cluster, packages, process
from harness.runtime.cleanup import take_down
from harness.runtime.cluster import GROUPS
from harness.runtime.etcd import CLIENTS
from harness.runtime.patroni import REST, SQL, Patroni
from harness.runtime.ports import HOST
from harness.runtime.postgres import SUPERUSER
from harness.runtime.run_directory import RunDir
from tests.chaos.stack import FAKES, GATEWAY, VARIABLES, ChaosStack, find_port
from tests.support import network_cables
from tests.support.network_cables import Cable
from tests.support.running_stack import SeatPool
from tests.support.silent_proxy import SilentProxy
from tests.support.system import TestSystem
from tests.support.waiting import wait_until

ANSWER_SECONDS = 3.0
# Many clients with long pauses, so that new ones arrive while a hung process holds the requests of others. They make
# about as many sales as the clients of `tests.chaos`.
CROWD, PAUSE_SECONDS = 40, 6.0
SERVICES = ("orchestrator-service", "inventory-service", "user-service", "order-service", "event-service")
PROBLEM = cluster.find_problem()
cluster_only = pytest.mark.skipif(bool(PROBLEM), reason=f"no cluster on this machine: {PROBLEM}")
Undo = Callable[[], None]


class Cluster(ChaosStack):
    """A running cluster with the leaders of its parts."""

    def node(self, name: str) -> Patroni:
        """A node of PostgreSQL."""
        return cast(Patroni, self.stack.program(name))

    def leader(self) -> str:
        """The node of PostgreSQL that leads."""
        return wait_until(self._find_leader, what="a node leads")

    def followers(self) -> list[str]:
        """The nodes of PostgreSQL that follow."""
        leader = self.leader()
        return [name for name in GROUPS["postgres"] if name != leader]

    def etcd_leader(self) -> str:
        """The node of etcd that leads."""
        for name in GROUPS["etcd"]:
            with suppress(urllib3.exceptions.HTTPError):
                url = f"{self.stack.url(name)}/v3/maintenance/status"
                answer = urllib3.request("POST", url, body=b"{}", timeout=ANSWER_SECONDS, retries=False).json()
                if answer["header"]["member_id"] == answer["leader"]:
                    return name
        raise AssertionError("no node of etcd leads")

    def is_healthy(self) -> bool:
        """Whether every process is healthy, and both followers have the leader's timeline.

        A follower that must be rewound streams for a moment with its old timeline.
        """
        return super().is_healthy() and self._has_both_followers()

    def queue_leader(self, queue: str) -> str:
        """The node of RabbitMQ that leads a queue."""
        node = next(self.broker(name) for name in GROUPS["rabbitmq"] if self.stack.state(name) == "running")
        rows = json.loads(node.run_rabbitmqctl("list_queues", "name", "leader", "--formatter", "json"))
        return str(next(row["leader"] for row in rows if row["name"] == queue)).partition("@")[0]

    def switch_over(self) -> None:
        """Let the leader of PostgreSQL hand over to a follower, and wait until that one leads.

        First both followers must be synchronous. The new leader expects them by name, so otherwise its commits would
        wait until the old leader has started again.
        """
        leader = self.leader()
        followers = len(GROUPS["postgres"]) - 1
        wait_until(lambda: self.node(leader).count_synchronous() == followers, 30, "all followers are synchronous")
        self._call(leader, "POST", "/switchover", {"leader": leader})
        wait_until(lambda: self._find_leader() not in (None, leader), 30, "another node leads")

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change the dynamic settings of Patroni, and wait until the leader has applied those of replication."""
        leader = self.leader()
        self._call(leader, "PATCH", "/config", settings)
        wait_until(lambda: not self._read_standbys(), 30, "the leader waits for no follower")

    def processes_of(self, name: str) -> list[psutil.Process]:
        """All processes of a node, with the server of PostgreSQL."""
        leader = self.identity(name).find()
        return [*(process.find_family(leader) if leader else ()), *self.stack.program(name).find_detached()]

    def memory(self) -> int:
        """The memory of all nodes, services and fakes in bytes. Pages that processes share count once."""
        found = {each.pid: each for name in (*self.processes, *FAKES) for each in self.processes_of(name)}
        total = 0
        for each in found.values():
            with suppress(psutil.NoSuchProcess):
                total += int(each.memory_full_info().pss)
        return total

    def _call(self, name: str, method: str, path: str, body: Mapping[str, Any]) -> None:
        node = self.node(name)
        headers = urllib3.make_headers(basic_auth=f"{SUPERUSER}:{node.password}")
        url = f"http://{HOST}:{node.probe[0]}{path}"
        answer = urllib3.request(method, url, json=body, headers=headers, timeout=60, retries=False)
        assert answer.status == 200, answer.data

    def _read_standbys(self) -> str:
        return str(self.system.rows("postgres", "SHOW synchronous_standby_names")[0]["synchronous_standby_names"])

    def _has_both_followers(self) -> bool:
        leader = self._find_leader()
        members = self.node(leader).read("/cluster").get("members", ()) if leader else ()
        timelines = [member.get("timeline") for member in members if member["name"] == leader]
        following = [member.get("timeline") for member in members if member.get("state") == "streaming"]
        return len(timelines) == 1 and following == timelines * (len(GROUPS["postgres"]) - 1)

    def _find_leader(self) -> str | None:
        for name in GROUPS["postgres"]:
            members = self.node(name).read("/cluster").get("members", ())
            found = [str(member["name"]) for member in members if member["role"] == "leader"]
            if found and self.node(found[0]).read("/patroni").get("role") == "primary":
                return found[0]
        return None


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may have ended."""
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


@contextmanager
def running_cluster(run_dir: Path, has_links: bool = False, serves_over_links: bool = True) -> Iterator[Cluster]:
    """Start a cluster, whose processes are killed at the end. With links, the nodes of PostgreSQL can be cut off.

    Each such node is reached over a link for SQL and one for its Patroni, and reaches etcd over a third one.

    Without `serves_over_links`, only the nodes use the links, so that replication can be cut alone.
    """
    try:
        packages.ensure_etcd()
    except StackError as error:
        pytest.skip(f"no cluster on this machine: {error}")
    directory = RunDir(run_dir)
    with ExitStack() as opened:
        opened.callback(take_down, directory)
        services = tuple(f"{name}{number}" for name in SERVICES for number in ("", "-2"))
        nodes = GROUPS["postgres"] if has_links else ()
        cables = {name: opened.enter_context(Cable()) for name in nodes if not network_cables.find_obstacle()}
        links = {
            (name, port): opened.enter_context(_open_link(directory, name, port, cables.get(name)))
            for name in nodes
            for port in (SQL, REST, CLIENTS)
        }
        overrides = _lead_over_links(links, services if serves_over_links else ()) if links else {}
        stack = runtime.up(run_dir, env=VARIABLES, quiet=True, overrides=overrides, wanted="ha")
        parts = tuple(name for group in GROUPS.values() for name in group)
        system = TestSystem(stack, SeatPool())
        named = {f"{name}:{port}": proxy for (name, port), proxy in links.items()}
        yield Cluster(
            stack,
            system,
            named,
            cables,
            services=services,
            processes=(*services, GATEWAY, *parts),
            clients=CROWD,
            pause_seconds=PAUSE_SECONDS,
        )


def _open_link(directory: RunDir, name: str, port: int, cable: Cable | None) -> SilentProxy:
    """Return a proxy to a port of a node, or from a node to any node of etcd that accepts."""
    turns = count()

    def connect() -> socket.socket:
        if port != CLIENTS:
            return socket.create_connection((HOST, find_port(directory, name, port)))
        ends = [find_port(directory, each, port) for each in GROUPS["etcd"]]
        first = next(turns) % len(ends)
        for end in ends[first:] + ends[:first]:
            with suppress(OSError):
                return socket.create_connection((HOST, end))
        raise ConnectionError("no node of etcd accepts")

    return SilentProxy(connect, cable.listen() if cable else None)


def _lead_over_links(
    links: Mapping[tuple[str, int], SilentProxy], services: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Return the variables with which nodes and services use the links."""
    nodes = {
        name: {
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": links[name, SQL].address,
            "PATRONI_RESTAPI_CONNECT_ADDRESS": links[name, REST].address,
            "PATRONI_ETCD3_HOSTS": links[name, CLIENTS].address,
            "PATRONI_ETCD3_USE_PROXIES": "true",  # else Patroni reads the addresses of all nodes and calls them
        }
        for name in GROUPS["postgres"]
    }
    servers = [links[name, SQL] for name in GROUPS["postgres"]]
    addresses = {
        "DB_HOST": ",".join(server.host for server in servers),
        "DB_PORT": ",".join(str(server.port) for server in servers),
    }
    return {**nodes, **dict.fromkeys(services, addresses)}
