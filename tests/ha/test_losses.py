"""The cluster survives the loss of each part: no acknowledged fact is lost, and sales resume in time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import cast

import pytest

from tests.chaos.soak import Result
from tests.ha import losses
from tests.ha.cluster import Cluster, cluster_only, running_cluster
from tests.ha.conftest import MEASURED
from tests.ha.losses import Loss

pytestmark = [pytest.mark.ha, cluster_only]

SEED = int(os.environ.get("SEED", "1"))  # of the load and of the order of the losses
MOST_MEMORY = 3 * 2**30
SHORT = (losses.SERVER_KILLED, losses.QUEUE_LEADER_KILLED)  # the losses of `make verify`
EACH_LOSS = [pytest.param(loss, marks=() if loss in SHORT else pytest.mark.deep) for loss in losses.LOSSES]
Suffered = tuple[Result, dict[Loss, float]]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all losses of this module."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def suffered(cluster: Cluster, request: pytest.FixtureRequest) -> Suffered:
    """The losses of all selected tests, one after the other under one load. Each is undone before the next one."""
    tests = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    selected = [cast(Loss, test.callspec.params["loss"]) for test in tests if "loss" in test.fixturenames]
    Random(SEED).shuffle(selected)
    return losses.suffer(cluster, SEED, *selected)


@pytest.mark.parametrize("loss", EACH_LOSS, ids=str)
def test_sales_resume_in_time(suffered: Suffered, loss: Loss, record_property: Record) -> None:
    _, outages = suffered
    record_property(MEASURED, f"{loss}: {outages[loss]:.1f} s")
    assert outages[loss] <= loss.limit


@pytest.mark.deep
@pytest.mark.parametrize("loss", [losses.ROLLING_RESTART], ids=str)
def test_one_retry_hides_a_rolling_restart(suffered: Suffered, loss: Loss, record_property: Record) -> None:
    """A client that repeats a request once, 5 s later, gets its answer."""
    result, outages = suffered
    record_property(MEASURED, f"{loss}: {outages[loss]:.1f} s")
    assert not losses.list_failures(result, loss)


def test_no_acknowledged_fact_is_lost(suffered: Suffered) -> None:
    """The judge of `tests.chaos` finds nothing: every saga ends, every cent is accounted for, and nothing grows."""
    result, _ = suffered
    assert not result.has_failed, result.explain()


def test_cluster_uses_at_most_three_gib(cluster: Cluster, suffered: Suffered, record_property: Record) -> None:
    """The clients have made its pools of connections and threads as large as they get."""
    used = cluster.memory()
    record_property(MEASURED, f"{used / 2**30:.2f} GiB")
    assert used <= MOST_MEMORY


@pytest.mark.deep
def test_sales_survive_a_leader_that_is_cut_off(tmp_path: Path, record_property: Record) -> None:
    with running_cluster(tmp_path, has_links=True) as linked:
        result, outages = losses.suffer(linked, SEED, losses.CUT_OFF)
    record_property(MEASURED, f"{losses.CUT_OFF}: {outages[losses.CUT_OFF]:.1f} s")
    assert not result.has_failed, result.explain()
    assert outages[losses.CUT_OFF] <= losses.CUT_OFF.limit
