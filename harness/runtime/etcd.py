"""The nodes of etcd, in which Patroni stores the lease of PostgreSQL's leader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.runtime import packages
from harness.runtime.ports import HOST
from harness.runtime.program import Ports, Program, make_state_dir

CLIENTS, PEERS = 2379, 2380
# Milliseconds. A machine with two cores that runs a whole cluster delays heartbeats by more than etcd's default of 100.
HEARTBEAT, ELECTION = 200, 1000


@dataclass
class Etcd(Program):
    """One node. It is ready when the cluster has a leader."""

    data: Path = Path()

    def prepare(self, env: Mapping[str, str]) -> None:
        """Install etcd if it is missing, and create the data directory."""
        packages.ensure_etcd()
        make_state_dir(self.data.parent, self.data.name).chmod(0o700)


def plan_etcd(name: str, names: Sequence[str], ports: Ports, run_dir: Path) -> Etcd:
    """Return the node `name` of the cluster `names`. The ports of its peers are part of its data."""
    own = dict(ports[name])
    data = run_dir / "etcd" / name
    clients, peers = f"http://{HOST}:{own[CLIENTS]}", f"http://{HOST}:{own[PEERS]}"
    options = {
        "name": name,
        "data-dir": str(data),
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": ",".join(f"{each}=http://{HOST}:{ports[each][PEERS]}" for each in names),
        "heartbeat-interval": str(HEARTBEAT),
        "election-timeout": str(ELECTION),
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": "1000",
        "logger": "zap",
        "log-outputs": "stderr",
    }
    return Etcd(
        name=name,
        argv=("etcd", *(f"--{option}={value}" for option, value in options.items())),
        env={},
        ports=own,
        probe=(own[CLIENTS], "/health"),
        data=data,
    )
