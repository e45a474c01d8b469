"""Negative control: without synchronous replication, a failover loses acknowledged facts, and the judge finds them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.runtime.patroni import SQL
from tests.ha import losses
from tests.ha.cluster import Cluster, Undo, cluster_only, running_cluster
from tests.ha.losses import Loss

pytestmark = [pytest.mark.ha, pytest.mark.deep, pytest.mark.negative_control, cluster_only]

LAG_SECONDS = 3.0
ASYNCHRONOUS = {
    "synchronous_mode": False,
    "synchronous_mode_strict": False,
    "maximum_lag_on_failover": 2**30,  # else Patroni promotes no follower that lags
}


def kill_leader_ahead_of_its_followers(cluster: Cluster) -> Undo:
    """Cut the replication alone, while the services reach the leader, and kill the leader's node some seconds later.

    A frozen follower would later read from its socket what the dead leader has sent.
    """
    leader = cluster.leader()
    replication = cluster.links[f"{leader}:{SQL}"]
    replication.silence()
    time.sleep(LAG_SECONDS)
    cluster.stack.kill(leader)
    replication.take_over()
    return lambda: cluster.stack.start(leader)


LOSS = Loss("kill the leader ahead of its followers", kill_leader_ahead_of_its_followers, losses.NODE, 40)


def test_judge_finds_lost_facts_without_synchronous_replication(tmp_path: Path) -> None:
    """The same loss with synchronous replication loses nothing."""
    with running_cluster(tmp_path, has_links=True, serves_over_links=False) as cluster:
        result, _ = losses.suffer(cluster, 1, LOSS)
        assert not result.has_failed, result.explain("make ha K=control")
        cluster.configure(ASYNCHRONOUS)
        result, _ = losses.suffer(cluster, 2, LOSS)
    assert {"lost order", "changed order"} & {finding.partition(":")[0] for finding in result.findings}
