"""The cluster of a test: finds its leaders, and changes them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import urllib3

from harness import runtime
from harness.runtime import cluster, process
from harness.runtime.cleanup import take_down
from harness.runtime.cluster import GROUPS
from harness.runtime.patroni import Patroni
from harness.runtime.ports import HOST
from harness.runtime.postgres import SUPERUSER
from harness.runtime.rabbitmq_cluster import ClusterNode
from harness.runtime.run_directory import RunDir
from tests.chaos.stack import GATEWAY, VARIABLES, ChaosStack
from tests.support.running_stack import SeatPool
from tests.support.system import TestSystem
from tests.support.waiting import wait_until

ANSWER_SECONDS = 3.0
PROBLEM = cluster.find_problem()
cluster_only = pytest.mark.skipif(bool(PROBLEM), reason=f"no cluster on this machine: {PROBLEM}")
Undo = Callable[[], None]


class Cluster(ChaosStack):
    """A running cluster with the leaders of its parts."""

    def node(self, name: str) -> Patroni:
        """A node of PostgreSQL."""
        return cast(Patroni, self.stack.program(name))

    def broker(self, name: str) -> ClusterNode:
        """A node of RabbitMQ."""
        return cast(ClusterNode, self.stack.program(name))

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

    def queue_leader(self, queue: str) -> str:
        """The node of RabbitMQ that leads a queue."""
        node = next(self.broker(name) for name in GROUPS["rabbitmq"] if self.stack.state(name) == "running")
        rows = json.loads(node.run_rabbitmqctl("list_queues", "name", "leader", "--formatter", "json"))
        return str(next(row["leader"] for row in rows if row["name"] == queue)).partition("@")[0]

    def switch_over(self) -> None:
        """Let the leader of PostgreSQL hand over to a follower, and wait until that one leads."""
        leader = self.leader()
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

    def _call(self, name: str, method: str, path: str, body: Mapping[str, Any]) -> None:
        node = self.node(name)
        headers = urllib3.make_headers(basic_auth=f"{SUPERUSER}:{node.password}")
        url = f"http://{HOST}:{node.probe[0]}{path}"
        answer = urllib3.request(method, url, json=body, headers=headers, timeout=60, retries=False)
        assert answer.status == 200, answer.data

    def _read_standbys(self) -> str:
        return str(self.system.rows("postgres", "SHOW synchronous_standby_names")[0]["synchronous_standby_names"])

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
def running_cluster(run_dir: Path, overrides: dict[str, dict[str, str]] | None = None) -> Iterator[Cluster]:
    """Start a cluster, whose processes are killed at the end."""
    directory = RunDir(run_dir)
    with ExitStack() as opened:
        opened.callback(take_down, directory)
        stack = runtime.up(run_dir, env=VARIABLES, quiet=True, overrides=overrides, wanted="ha")
        services = tuple(name for name in stack.names if name.removesuffix("-2").endswith("-service"))
        nodes = tuple(name for group in GROUPS.values() for name in group)
        system = TestSystem(stack, SeatPool())
        yield Cluster(stack, system, {}, services=services, processes=(*services, GATEWAY, *nodes))
