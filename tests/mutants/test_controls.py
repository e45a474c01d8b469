"""Each mutant removes a guard, and a test that it names must fail. `make mutants` also searches for further tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from tests.claims.parallel_suite import list_selected
from tests.mutants.mutant import Edit, Mutant, read_mutants
from tests.mutants.runs import Finding, examine, run_mutant
from tests.mutants.sandbox import ROOT, Run, Sandbox, open_sandbox

pytestmark = [pytest.mark.saga, pytest.mark.negative_control]

MUTANTS = read_mutants()
RULES = "services/orchestrator/tickets/scan_rules.py"
MAX_AGE = "MAX_AGE = timedelta(seconds=TTL_SECONDS + CLOCK_LEEWAY_SECONDS)"
CATCHER = "tests/unit/orchestrator/test_scan_rules.py::test_qr_age_limits_are_exact_to_the_second"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox for all tests of this module."""
    with open_sandbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def findings(sandbox: Sandbox, request: pytest.FixtureRequest) -> dict[Mutant, Finding]:
    """The findings of the mutants that pytest has selected.

    A test that this run selects too is not run again without a mutant.
    """
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [case["mutant"] for case in params if "mutant" in case]
    return {found.mutant: found for found in examine(sandbox, selected, list_selected(request.session))}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_defect_is_caught(mutant: Mutant, findings: dict[Mutant, Finding]) -> None:
    assert not findings[mutant].problem


@pytest.mark.parametrize(
    ("old", "new", "caught_by", "problem"),
    [
        (MAX_AGE, MAX_AGE.replace("seconds=", "0, "), CATCHER, "survived"),
        (MAX_AGE, "MAX_AGE = two", CATCHER, "not collected"),
        (MAX_AGE, MAX_AGE.replace("seconds=", "0, "), f"{CATCHER}_or_not", "pytest ended with 4"),
        ("text that does not occur", "", CATCHER, "stale"),
        ("return", "yield", CATCHER, "stale"),
    ],
    ids=["changes nothing", "cannot be imported", "names no test", "text is gone", "text is there often"],
)
def test_mutant_that_proves_nothing_fails(sandbox: Sandbox, old: str, new: str, caught_by: str, problem: str) -> None:
    mutant = Mutant("useless", "none", "none", (Edit(RULES, old, new),), (caught_by,), "orchestrator")
    assert problem in run_mutant(sandbox, mutant).problem


class FailingSandbox(Sandbox):
    """A sandbox in which every test fails, with a mutant and without."""

    def __init__(self) -> None:
        super().__init__(ROOT, ())
        self.size = 1

    def run_clean(self, arguments: Sequence[str], seconds: float, seed: int = 0) -> Run:
        return Run(dict.fromkeys(arguments, "assert False"), (), "", 0.0)

    def run_mutant(self, mutant: Mutant, arguments: Sequence[str], seconds: float) -> Run:
        return self.run_clean(arguments, seconds)


@pytest.mark.parametrize(("run_anyway", "problem"), [((), "fails without it too: assert False"), ((CATCHER,), "")])
def test_catcher_has_to_pass_without_the_mutant(run_anyway: Sequence[str], problem: str) -> None:
    """A test that the caller runs anyway is not run again."""
    mutant = Mutant("useless", "none", "none", (Edit(RULES, MAX_AGE, MAX_AGE),), (CATCHER,), "orchestrator")
    [found] = examine(FailingSandbox(), [mutant], run_anyway)
    assert found.problem == problem
