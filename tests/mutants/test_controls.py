"""Negative controls: with a guard taken away the test that stands for it has to fail. `make mutants` asks all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mutants.mutant import Edit, Mutant, load
from tests.mutants.runs import Finding, examine, plant
from tests.mutants.sandbox import Laboratory, laboratory

pytestmark = [pytest.mark.saga, pytest.mark.negative_control]

MUTANTS = load()
RULES = "services/orchestrator/tickets/scan_rules.py"
CATCHER = "tests/unit/orchestrator/test_scan_rules.py::test_qr_age_limits_are_exact_to_the_second"


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    """A laboratory for all controls of this run."""
    with laboratory() as opened:
        yield opened


@pytest.fixture(scope="module")
def findings(lab: Laboratory, request: pytest.FixtureRequest) -> dict[Mutant, Finding]:
    """What came of the mutants that this run has selected."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    return {
        found.mutant: found for found in examine(lab, [params["mutant"] for params in chosen if "mutant" in params])
    }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_defect_is_caught(mutant: Mutant, findings: dict[Mutant, Finding]) -> None:
    assert not findings[mutant].trouble


@pytest.mark.parametrize(
    ("old", "new", "caught_by", "trouble"),
    [
        ("MAX_AGE = timedelta(seconds=TTL_SECONDS)", "MAX_AGE = timedelta(0, TTL_SECONDS)", CATCHER, "survived"),
        ("MAX_AGE = timedelta(seconds=TTL_SECONDS)", "MAX_AGE = two", CATCHER, "not collected"),
        (
            "MAX_AGE = timedelta(seconds=TTL_SECONDS)",
            "MAX_AGE = timedelta(0, TTL_SECONDS)",
            f"{CATCHER}_or_not",
            "pytest ended with 4",
        ),
        ("text that is not there", "", CATCHER, "stale"),
        ("return", "yield", CATCHER, "stale"),
    ],
    ids=["changes nothing", "cannot be imported", "names no test", "text is gone", "text is there often"],
)
def test_control_that_proves_nothing_fails(lab: Laboratory, old: str, new: str, caught_by: str, trouble: str) -> None:
    hollow = Mutant("hollow", "none", "none", (Edit(RULES, old, new),), (caught_by,), "orchestrator")
    assert trouble in plant(lab, hollow).trouble
