"""Memory, descriptors and threads of each process, and sessions of each database, in an idle moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from harness.runtime.process import Identity, find_family, wait_for
from tests.chaos.judge import Growth
from tests.chaos.stack import GATEWAY, ChaosStack

MIB = 2**20
SESSIONS = (
    "SELECT datname AS name, count(*)::int AS number FROM pg_stat_activity WHERE datname LIKE '%%_db' GROUP BY datname"
)
WARM_SECONDS = 20.0  # in which a new process fills its caches and pools
REST_SECONDS = 40.0  # a server ends a thread that was idle for 30 s
SLACK: Mapping[str, float] = {"memory": 24 * MIB, "descriptors": 32, "threads": 16, "sessions": 16}
"""Growth that means nothing. Pools of connections and threads grow with the load, up to a limit that they keep. A
service can have two processes, each with a pool of 8 sessions."""


@dataclass(frozen=True)
class Sample:
    """The figures of one moment: by process, and by kind and name."""

    identities: dict[str, Identity]
    figures: dict[tuple[str, str], float]


def slack_with(clients: int) -> dict[str, float]:
    """Return SLACK with a connection and a thread for each client.

    A process that hangs serves all clients at once afterwards. Health checks then keep its threads from being idle.
    """
    return {**SLACK} | {kind: SLACK[kind] + clients for kind in ("descriptors", "threads")}


def measure(stack: ChaosStack) -> Sample:
    """Measure every process with all that it started."""
    identities = {name: stack.identity(name) for name in stack.processes}
    figures: dict[tuple[str, str], float] = {}
    for name, identity in identities.items():
        figures |= measure_process(name, identity)
    for row in stack.system.rows("sagas_db", SESSIONS):
        figures["sessions", row["name"]] = row["number"]
    return Sample(identities, figures)


def measure_process(name: str, identity: Identity) -> dict[tuple[str, str], float]:
    """Measure a process with all that it started. The backends of PostgreSQL are counted as sessions."""
    leader = identity.find()
    figures = {("memory", name): 0.0, ("descriptors", name): 0.0, ("threads", name): 0.0}
    for member in find_family(leader) if leader and name != "postgres" else ():
        try:
            figures["memory", name] += member.memory_full_info().pss
            figures["descriptors", name] += member.num_fds()
            figures["threads", name] += member.num_threads()
        except psutil.NoSuchProcess:
            continue
    return figures


def renew(before: Sample, stack: ChaosStack) -> Sample:
    """Return the sample with new figures of each service that was restarted and has worked for WARM_SECONDS since.

    RabbitMQ is left out: a new node keeps messages in memory until its log of the quorum queues is full.
    """
    identities, figures = dict(before.identities), dict(before.figures)
    for name in (*stack.services, GATEWAY):
        identity = stack.identity(name)
        if identity != before.identities[name] and time.time() - identity.started > WARM_SECONDS:
            identities[name] = identity
            figures |= measure_process(name, identity)
    return Sample(identities, figures)


def await_rest(
    before: Sample, take: Callable[[], Sample], slack: Mapping[str, float], seconds: float = REST_SECONDS
) -> list[Growth]:
    """Take samples until nothing has grown, but for at most `seconds`. Return the growth of the last one."""
    latest: list[Growth] = []

    def is_at_rest() -> bool:
        latest[:] = compare(before, take(), slack)
        return not any(figure.is_leak for figure in latest)

    wait_for(is_at_rest, seconds)
    return latest


def compare(before: Sample, after: Sample, slack: Mapping[str, float]) -> list[Growth]:
    """Return the growth of every figure. A process that was restarted just before the end has none to compare."""
    return [
        Growth(f"{kind} of {name}", was, after.figures.get((kind, name), 0.0), slack[kind])
        for (kind, name), was in before.figures.items()
        if before.identities.get(name) == after.identities.get(name)
    ]
