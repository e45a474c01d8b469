"""The counter of invariant checks covers all processes of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import invariant_counter
from harness.invariant_counter import InvariantCounter
from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

CHILD = """
from harness import invariant_counter
invariant_counter.count(['i1', 'i2'], at_rest=True)
invariant_counter.count(['i2'], at_rest=False)
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[InvariantCounter]:
    """A counter that is separate from the counter of the run that this test is part of."""
    monkeypatch.setenv("TR_INVARIANT_COUNTS", "")
    monkeypatch.setattr(invariant_counter, "_counts", type(invariant_counter._counts)())
    run = InvariantCounter()
    yield run
    run.close()
    monkeypatch.undo()


def test_counter_adds_the_checks_of_child_processes(run: InvariantCounter) -> None:
    invariant_counter._counts.update(["i1"])
    for _ in range(2):
        subprocess.run([sys.executable, "-c", CHILD], cwd=ROOT, env=dict(os.environ), check=True)
    assert run.totals() == {"i1": 3, "i2": 4, "i7_sagas_end": 2}


def test_process_that_ends_after_the_run_writes_no_file(tmp_path: Path) -> None:
    late = f"{CHILD}\nimport os\ndel os.environ['TR_INVARIANT_COUNTS']"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TR_INVARIANT_COUNTS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", late], cwd=tmp_path, env=environment, check=True)
    assert not list(tmp_path.iterdir())
