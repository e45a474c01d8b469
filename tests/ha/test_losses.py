"""The cluster survives the loss of each part: no acknowledged fact is lost, and sales resume in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import cast

import pytest

from tests.chaos.soak import Result
from tests.ha import losses
from tests.ha.cluster import Cluster, cluster_only, running_cluster
from tests.ha.conftest import MEASURED
from tests.ha.losses import Loss

pytestmark = [pytest.mark.ha, cluster_only]

MOST_MEMORY = 3 * 2**30
SHORT = (losses.SERVER_KILLED, losses.QUEUE_LEADER_KILLED)  # the losses of `make verify`
EACH_LOSS = [pytest.param(loss, marks=() if loss in SHORT else pytest.mark.deep) for loss in losses.LOSSES]
Outcome = tuple[Result, dict[Loss, float]]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all losses of this module."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def outcome(cluster: Cluster, request: pytest.FixtureRequest) -> Outcome:
    """Cause the losses of all selected tests, one after the other under one load.

    The judge of `tests.chaos` must find nothing: no fact is lost, every saga ends, and nothing grows. The first test
    that fails shows its findings.
    """
    tests = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    selected = [cast(Loss, test.callspec.params["loss"]) for test in tests if "loss" in test.fixturenames]
    Random(losses.SEED).shuffle(selected)
    result, outages = losses.suffer(cluster, losses.SEED, *(selected or SHORT))
    if result.has_failed:
        print(result.explain(f"make ha SEED={losses.SEED}"))
    return result, outages


@pytest.mark.parametrize("loss", EACH_LOSS, ids=str)
def test_sales_resume_in_time(outcome: Outcome, loss: Loss, record_property: Record) -> None:
    result, outages = outcome
    record_property(MEASURED, f"{loss}: {outages[loss]:.1f} s")
    assert outages[loss] <= loss.limit
    assert not result.has_failed, f"the judge has {len(result.findings)} findings"


@pytest.mark.deep
@pytest.mark.parametrize("loss", [losses.ROLLING_RESTART], ids=str)
def test_one_retry_hides_a_rolling_restart(outcome: Outcome, loss: Loss, record_property: Record) -> None:
    """A client that repeats a request once, 5 s later, gets its answer."""
    result, outages = outcome
    record_property(MEASURED, f"{loss}: {outages[loss]:.1f} s")
    assert outages[loss] <= loss.limit
    assert not losses.list_failures(result, loss)
    assert not result.has_failed, f"the judge has {len(result.findings)} findings"


def test_cluster_uses_at_most_three_gib(cluster: Cluster, outcome: Outcome, record_property: Record) -> None:
    """The clients have made its pools of connections and threads as large as they get."""
    assert not outcome[0].has_failed
    used = cluster.memory()
    record_property(MEASURED, f"{used / 2**30:.2f} GiB")
    assert used <= MOST_MEMORY
