"""The cluster survives the loss of each part: no acknowledged fact is lost, and sales resume in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ha import losses
from tests.ha.cluster import Cluster, cluster_only, running_cluster
from tests.ha.losses import Loss

pytestmark = [pytest.mark.ha, cluster_only]

SEED = 1
MOST_MEMORY = 3 * 2**30
SHORT = (losses.SERVER_KILLED, losses.QUEUE_LEADER_KILLED)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests of this module. Each loss is undone."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def check(cluster: Cluster, *suffered: Loss) -> None:
    """Cause the losses under load. Nothing acknowledged may be lost, and sales must resume in time."""
    result, outages = losses.suffer(cluster, SEED, *suffered)
    print({str(loss): round(seconds, 1) for loss, seconds in outages.items()})
    assert not result.has_failed, result.explain()
    assert all(seconds <= loss.limit for loss, seconds in outages.items()), outages


def test_sales_survive_two_losses(cluster: Cluster) -> None:
    """A short run for `make verify`."""
    check(cluster, *SHORT)


@pytest.mark.deep
@pytest.mark.parametrize("loss", losses.LOSSES, ids=str)
def test_sales_survive(cluster: Cluster, loss: Loss) -> None:
    check(cluster, loss)


def test_cluster_uses_at_most_three_gib(cluster: Cluster) -> None:
    """The clients of the tests before this one have made its pools of connections and threads as large as they get."""
    used = cluster.memory()
    print(f"{used / 2**30:.2f} GiB")
    assert used <= MOST_MEMORY


@pytest.mark.deep
def test_sales_survive_a_leader_that_is_cut_off(tmp_path: Path) -> None:
    with running_cluster(tmp_path, has_links=True) as linked:
        check(linked, losses.CUT_OFF)


@pytest.mark.deep
def test_one_retry_hides_a_rolling_restart(cluster: Cluster) -> None:
    """A client that repeats a request once, 5 s later, gets its answer."""
    result, _ = losses.suffer(cluster, SEED, losses.ROLLING_RESTART)
    print(f"longest wait: {max(wait.seconds for wait in result.case.ledger.waits):.1f} s")
    assert not result.has_failed, result.explain()
    assert not losses.list_failures(result)
