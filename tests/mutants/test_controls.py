"""Negative controls: with a guard taken away the test that stands for it has to fail. `make mutants` asks all tests."""

from __future__ import annotations

import pytest

from tests.mutants.laboratory import laboratory
from tests.mutants.mutant import Mutant, load
from tests.mutants.trials import Finding, examine

pytestmark = pytest.mark.saga

MUTANTS = load()


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest) -> dict[Mutant, Finding]:
    """What came of the mutants that this run has selected."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [params["mutant"] for params in chosen if "mutant" in params]
    with laboratory() as lab:
        return {found.mutant: found for found in examine(lab, selected)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_defect_is_caught(mutant: Mutant, findings: dict[Mutant, Finding]) -> None:
    assert not findings[mutant].trouble
