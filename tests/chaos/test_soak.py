"""A short soak: every acknowledged fact survives the acts of the seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import soak
from tests.chaos.stack import running_stack
from tests.support.running_stack import native_only

pytestmark = [pytest.mark.chaos, native_only("the acts send signals to processes of this machine")]

SEED, SECONDS = 11, 60.0


def test_acknowledged_facts_survive_the_acts_of_a_seed(tmp_path: Path) -> None:
    with running_stack(tmp_path) as stack:
        result = soak.soak(stack, SEED, SECONDS)
    soak.write_report(result)
    assert not result.has_failed, result.explain()
