"""The nodes of a RabbitMQ cluster. Each quorum queue has a member on each node."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.runtime.rabbitmq import ERL_FLAGS, SOURCES, RabbitMQ, environment

HOST = "localhost"
JOIN_SECONDS = 120
# Milliseconds, as in the manifests. Without the answer of a queue whose leader has died, RabbitMQ sends an expired
# message again after this time. Its default is three minutes.
ADVANCED = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n"
# The nodes share few cores, so idle schedulers sleep instead of spinning.
IDLE_FLAGS = "+sbwt none +sbwtdcpu none +sbwtdio none"


@dataclass
class ClusterNode(RabbitMQ):
    """One node. The last one imports the topology, because a new queue gets members only on nodes that have joined."""

    turns: ClassVar[int] = 3
    nodes: tuple[str, ...] = ()

    def prepare(self, env: Mapping[str, str]) -> None:
        """Write the files of the node, and the cookie that all nodes share."""
        super().prepare(env)
        (self.home / "advanced.config").write_text(ADVANCED)
        cookie = self.home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(hashlib.sha256(self.password.encode()).hexdigest())

    def is_ready(self) -> bool:
        """Return whether the node accepts the user."""
        return self._accepts(lambda channel: None)

    def after_ready(self) -> None:
        """Import the topology once all nodes have joined. Raises StackError if one does not join."""
        if self.node == self.nodes[-1] and not super().is_ready():
            self.run_rabbitmqctl("await_online_nodes", str(len(self.nodes)), "--timeout", str(JOIN_SECONDS))
            self.run_rabbitmqctl("import_definitions", str(SOURCES / "definitions.json"))

    def _write_topology(self, path: Path) -> None:
        """Write only the virtual host, because the other nodes have not joined when this one reads the file."""
        path.write_text(json.dumps({"vhosts": [{"name": "/"}]}))

    def _settings(self) -> dict[str, str]:
        discovered = {f"cluster_formation.classic_config.nodes.{n}": node for n, node in enumerate(self.nodes, 1)}
        return {
            "cluster_formation.peer_discovery_backend": "classic_config",
            **discovered,
            "cluster_partition_handling": "pause_minority",  # as in the manifests
        }


def plan_node(
    name: str, names: Sequence[str], ports: Mapping[int, int], run_dir: Path, user: str, password: str
) -> ClusterNode:
    """Return the node `name` of the cluster `names`. `ports` includes 25672 (distribution) and 4369 (epmd)."""
    home, node = run_dir / "rabbitmq" / name, f"{name}@{HOST}"
    variables = environment(home, ports, node)
    return ClusterNode(
        name=name,
        argv=(),  # `prepare` sets it
        env={**variables, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{ERL_FLAGS} {IDLE_FLAGS}"},
        ports={port: ports[port] for port in (5672, 25672)},
        probe=(ports[5672], ""),
        needs=("epmd",),
        home=home,
        user=user,
        password=password,
        node=node,
        nodes=tuple(f"{each}@{HOST}" for each in names),
    )
