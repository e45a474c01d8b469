"""The cluster survives a leader that is cut off: it runs on, but reaches nothing and is not reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ha import losses
from tests.ha.cluster import cluster_only, running_cluster
from tests.ha.conftest import MEASURED

pytestmark = [pytest.mark.ha, pytest.mark.deep, cluster_only]


def test_sales_resume_after_a_partition(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with running_cluster(tmp_path, has_links=True) as cluster:
        result, outages = losses.suffer(cluster, losses.SEED, losses.CUT_OFF)
    record_property(MEASURED, f"{losses.CUT_OFF}: {outages[losses.CUT_OFF]:.1f} s")
    assert not result.has_failed, result.explain(f"make ha SEED={losses.SEED}")
    assert outages[losses.CUT_OFF] <= losses.CUT_OFF.limit
