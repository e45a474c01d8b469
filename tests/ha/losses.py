"""The losses that a cluster must survive, each with the seconds until sales resume.

A loss is an act of the nemesis of `tests.chaos`, whose load and judge this suite uses.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import psycopg2

from harness.runtime import process
from harness.runtime.cluster import GROUPS
from tests.chaos.ledger import Ledger, Window
from tests.chaos.nemesis import Act, Kind
from tests.chaos.soak import QUIET_SECONDS, Result, soak
from tests.chaos.stack import HEALTHY_SECONDS, ChaosStack
from tests.ha.cluster import SERVICES, Cluster, Undo, send
from tests.support.queue_admin import HOLD
from tests.support.waiting import wait_until

SEED = int(os.environ.get("SEED", "1"))  # of the load and of the order of the losses
PAY = "POST /api/pay"
RETRY_SECONDS = 5.0  # after which a client repeats a request once


@dataclass(frozen=True)
class Loss:
    """A loss: `strike` causes it and returns what undoes it after `seconds`.

    Sales resume within `limit` seconds of the loss, or of its end if they need what was lost.
    """

    name: str
    strike: Callable[[Cluster], Undo]
    limit: float
    seconds: float
    resumes_after_undo: bool = False

    def __str__(self) -> str:
        return self.name

    def perform(self, stack: ChaosStack, act: Act) -> None:
        """Cause the loss, and undo it."""
        assert isinstance(stack, Cluster)
        undo = self.strike(stack)
        time.sleep(act.seconds)
        undo()

    def outage(self, ledger: Ledger, window: Window) -> float:
        """Return the longest time without an acknowledged sale, in seconds."""
        began = window.restored if self.resumes_after_undo else window.began
        paid = sorted(call.at + call.seconds for call in ledger.calls if call.request == PAY and call.status == 200)
        end = window.restored + QUIET_SECONDS
        return max(after - before for before, after in pairwise([began, *(at for at in paid if began < at < end), end]))


def suffer(cluster: Cluster, seed: int, *losses: Loss) -> tuple[Result, dict[Loss, float]]:
    """Let clients work while the losses happen one after the other. Return the result and the outage of each.

    If the cluster does not recover from a loss, that is the last one, and the others have an infinite outage.
    """
    kinds = {loss.name: Kind(loss.perform, (loss.name,)) for loss in losses}
    acts = [Act(loss.name, "", loss.seconds, QUIET_SECONDS) for loss in losses]
    seconds = sum(act.seconds + act.rest for act in acts) + 2 * QUIET_SECONDS
    result = soak(cluster, seed, seconds, acts, kinds)
    ledger = result.case.ledger
    outages = {loss: loss.outage(ledger, window) for loss, window in zip(losses, ledger.windows, strict=False)}
    return result, {loss: outages.get(loss, float("inf")) for loss in losses}


def list_failures(result: Result, loss: Loss) -> list[str]:
    """Return the requests during a loss that failed for a client that repeats each of them once.

    Raises StopIteration if the run ended before the loss.
    """
    ledger = result.case.ledger
    window = next(window for window in ledger.windows if window.act == str(Act(loss.name, "", 0, 0)))
    failed = (wait for wait in ledger.waits if wait.tries > 1 and wait.seconds > RETRY_SECONDS)
    return [str(wait) for wait in failed if window.covers(wait.at, wait.seconds)]


# ── PostgreSQL


def kill_server(cluster: Cluster) -> Undo:
    """Kill the server of the leader. Its Patroni starts it again."""
    process.kill_all(cluster.node(cluster.leader()).find_detached())
    return _nothing


def kill_leader(cluster: Cluster) -> Undo:
    """Kill the whole node of the leader."""
    return _kill(cluster, cluster.leader())


def freeze_leader(cluster: Cluster) -> Undo:
    """Stop the whole node of the leader with SIGSTOP. Afterwards it still takes itself for the leader."""
    return freeze(cluster, cluster.leader())


def cut_off_leader(cluster: Cluster) -> Undo:
    """Cut all links of the leader's node without a sign. Its server runs on, and its Patroni reaches no etcd."""
    leader = cluster.leader()
    if leader in cluster.cables:
        cluster.cables[leader].pull()
        return cluster.cables[leader].plug
    links = [link for name, link in cluster.links.items() if name.partition(":")[0] == leader]
    for link in links:
        link.silence()

    def undo() -> None:
        for link in links:
            link.take_over()

    return undo


def kill_follower(cluster: Cluster) -> Undo:
    """Kill the node of a follower."""
    return _kill(cluster, cluster.followers()[0])


def freeze_follower(cluster: Cluster) -> Undo:
    """Stop the node of a follower with SIGSTOP."""
    return freeze(cluster, cluster.followers()[0])


def switch_over(cluster: Cluster) -> Undo:
    """Let the leader hand over to a follower, as before maintenance."""
    cluster.switch_over()
    return _nothing


def change_schema(cluster: Cluster) -> Undo:
    """Add a column and an index to `orders`, as the schema script of a new version does, and remove both."""
    drop = "DROP INDEX CONCURRENTLY IF EXISTS orders_ha_note"
    _migrate(cluster, "ALTER TABLE orders ADD COLUMN IF NOT EXISTS ha_note text NOT NULL DEFAULT ''")
    _migrate(cluster, drop, "CREATE INDEX CONCURRENTLY orders_ha_note ON orders (ha_note)")  # a failure leaves an index
    return lambda: _migrate(cluster, drop, "ALTER TABLE orders DROP COLUMN IF EXISTS ha_note")


def _migrate(cluster: Cluster, *statements: str) -> None:
    """Run statements, and repeat all of them if one waits for a lock for 2 s. So no request waits for longer."""
    with closing(cluster.system.connect("orders_db")) as orders, orders.cursor() as cursor:
        cursor.execute("SET lock_timeout = '2s'")

        def run() -> bool:
            try:
                for statement in statements:
                    cursor.execute(statement)
            except psycopg2.errors.LockNotAvailable:
                return False
            return True

        wait_until(run, HEALTHY_SECONDS, statements[-1])


# ── etcd, RabbitMQ and the services


def kill_etcd_leader(cluster: Cluster) -> Undo:
    """Kill the leader of etcd."""
    return _kill(cluster, cluster.etcd_leader())


def kill_broker(cluster: Cluster) -> Undo:
    """Kill a node of RabbitMQ that does not lead the queue of the holds."""
    leader = cluster.queue_leader(HOLD)
    return _kill(cluster, next(name for name in GROUPS["rabbitmq"] if name != leader))


def kill_queue_leader(cluster: Cluster) -> Undo:
    """Kill the node of RabbitMQ that leads the queue of the holds."""
    return _kill(cluster, cluster.queue_leader(HOLD))


def kill_two_brokers(cluster: Cluster) -> Undo:
    """Kill two nodes of RabbitMQ. The third one has no majority, so no hold gets its message."""
    for name in GROUPS["rabbitmq"][:2]:
        cluster.stack.kill(name)
    return partial(cluster.stack.start, "rabbitmq")


def restart_everything(cluster: Cluster) -> Undo:
    """Restart every node and service in turn. Each is healthy before the next one stops."""
    for name in _rolling_order(cluster):
        cluster.stack.restart(name)
        _await_health(cluster, f"the restart of {name}")
    return _nothing


def _rolling_order(cluster: Cluster) -> Iterator[str]:
    """The names of all nodes and services. The leader of PostgreSQL hands over before its turn."""
    yield from (*GROUPS["etcd"], *GROUPS["rabbitmq"])
    first = cluster.leader()
    yield from cluster.followers()
    cluster.switch_over()
    _await_health(cluster, "the switchover")  # until a follower streams from the new leader, no commit ends
    yield first
    yield from cluster.services


def _await_health(cluster: Cluster, what: str) -> None:
    wait_until(cluster.is_healthy, HEALTHY_SECONDS, f"every process is healthy after {what}")


def _kill(cluster: Cluster, name: str) -> Undo:
    cluster.stack.kill(name)
    return partial(cluster.stack.start, name)


def freeze(cluster: Cluster, name: str) -> Undo:
    """Stop all processes of a node or service with SIGSTOP."""
    processes = cluster.processes_of(name)
    send(processes, signal.SIGSTOP)
    return partial(send, processes, signal.SIGCONT)


def _nothing() -> None:
    pass


NODE, SERVER, OTHER = 30.0, 8.0, 5.0  # the limits: the leader's node has a lease of 20 s
SERVER_KILLED = Loss("kill the leader's server", kill_server, SERVER, 10)
NODE_KILLED = Loss("kill the leader's node", kill_leader, NODE, 40)
NODE_FROZEN = Loss("freeze the leader's node", freeze_leader, NODE, 40)
SWITCHOVER = Loss("switch over", switch_over, OTHER, 5)
QUEUE_LEADER_KILLED = Loss("kill the queue's leader", kill_queue_leader, OTHER, 8)
ROLLING_RESTART = Loss("restart everything", restart_everything, SERVER, 5)
CUT_OFF = Loss("cut off the leader's node", cut_off_leader, NODE, 40)
HUNG = [Loss(f"hang {service}", partial(freeze, name=service), OTHER, 8) for service in SERVICES]
LOSSES = [
    SERVER_KILLED,
    NODE_KILLED,
    NODE_FROZEN,
    SWITCHOVER,
    Loss("kill a follower", kill_follower, OTHER, 8),
    Loss("freeze a follower", freeze_follower, OTHER, 15),
    Loss("kill etcd's leader", kill_etcd_leader, OTHER, 8),
    Loss("kill a RabbitMQ node", kill_broker, OTHER, 8),
    QUEUE_LEADER_KILLED,
    Loss("kill two RabbitMQ nodes", kill_two_brokers, OTHER, 8, resumes_after_undo=True),
    *HUNG,
    Loss("change a schema", change_schema, OTHER, 5),
]
