"""The two runs of each mutant: its named tests must pass without it and fail with it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tests.mutants.mutant import Mutant, Stale
from tests.mutants.sandbox import ROOT, Run, Sandbox

T = TypeVar("T")
R = TypeVar("R")
NAMED_SECONDS = 60.0  # limit for the named tests of one mutant
CLEAN_SECONDS = 300.0  # limit for all named tests together
OTHER_SECONDS, DEEP_SECONDS = 120.0, 900.0  # limits for the search of a further test
UNIT = ROOT / "tests" / "unit"
SLOW = (  # these tests start brokers or processes, or need 50,000 seats
    "chassis/test_broker",
    "fakes/",
    "harness/",
    "inventory/test_consumer",
    "inventory/test_http",
    "inventory/test_process",
    "user/test_with_fakes",
)


@dataclass(frozen=True)
class Finding:
    """The result of one mutant. If `problem` is not empty, the mutant survived or proves nothing."""

    mutant: Mutant
    caught_by: str = ""
    reason: str = ""
    seconds: float = 0.0
    problem: str = ""


def examine(sandbox: Sandbox, mutants: Sequence[Mutant], run_anyway: Container[str] = ()) -> list[Finding]:
    """Run the named tests with each mutant, and once without any.

    A test of `run_anyway` is not run without a mutant, because the caller runs it and fails if it fails.
    """
    clean = run_clean(sandbox, [test for test in list_named_tests(mutants) if test not in run_anyway])
    slowest_first = sorted(mutants, key=lambda mutant: "/saga/" not in mutant.caught_by[0])
    results = map_concurrently(sandbox, lambda mutant: run_mutant(sandbox, mutant), slowest_first)
    findings = dict(zip(slowest_first, results, strict=True))
    return [_compare(findings[mutant], clean, run_anyway) for mutant in mutants]


def run_clean(sandbox: Sandbox, tests: Sequence[str], seed: int = 0) -> Run:
    """Run tests without a mutant, distributed over the workspaces by file. The seed sets order and examples."""
    options = [f"--hypothesis-seed={seed}"] if seed else []
    files = sorted({test.partition("::")[0] for test in tests}, key=lambda file: "/saga/" not in file)
    size = sandbox.size
    shares = [[test for test in tests if test.partition("::")[0] in files[turn::size]] for turn in range(size)]
    runs = map_concurrently(
        sandbox, lambda share: sandbox.run_clean([*options, *share], CLEAN_SECONDS, seed), [s for s in shares if s]
    )
    return Run(
        failed={node: reason for run in runs for node, reason in run.failed.items()},
        passed=tuple(node for run in runs for node in run.passed),
        problem="; ".join(run.problem for run in runs if run.problem),
        seconds=max((run.seconds for run in runs), default=0.0),
    )


def run_mutant(sandbox: Sandbox, mutant: Mutant) -> Finding:
    """Run the named tests of a mutant with it."""
    try:
        run = sandbox.run_mutant(mutant, mutant.caught_by, NAMED_SECONDS)
    except Stale as stale:
        return Finding(mutant, problem=f"stale: {stale}")
    if not run.failed:
        return Finding(mutant, seconds=run.seconds, problem=run.problem or "survived the tests that it names")
    test, reason = next(iter(run.failed.items()))
    return Finding(mutant, test, reason, run.seconds, run.problem)


def find_other_catcher(sandbox: Sandbox, mutant: Mutant, *, deep: bool = False) -> str:
    """Return the first other test that fails with the mutant, or the reason why there is none.

    It searches the unit tests of the mutant's area and the saga tests without processes. `deep` searches both suites.
    """
    suites = ["tests/unit", "tests/saga"] if deep else _list_quick_files(mutant.area)
    others = [*suites, *(f"--deselect={test}" for test in mutant.caught_by)]
    try:
        run = sandbox.run_mutant(mutant, others, DEEP_SECONDS if deep else OTHER_SECONDS)
    except Stale:
        return "stale"
    return next(iter(run.failed), run.problem or "no other")


def _list_quick_files(area: str) -> list[str]:
    units = UNIT.glob("**/test_*.py" if area == "chassis" else f"{area}/test_*.py")
    saga = ROOT / "tests" / "saga"
    sagas = [saga / "in_process" / "test_guards.py", *sorted((saga / "interleavings").glob("test_*.py"))]
    quick = [file for file in sorted(units) if not str(file.relative_to(UNIT)).startswith(SLOW)]
    return [str(file.relative_to(ROOT)) for file in (*quick, *sagas)]


def list_named_tests(mutants: Iterable[Mutant]) -> list[str]:
    """Return the named tests of all mutants without duplicates."""
    return list(dict.fromkeys(test for mutant in mutants for test in mutant.caught_by))


def map_concurrently(sandbox: Sandbox, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply `work` to every item, one at a time for each workspace."""
    with ThreadPoolExecutor(sandbox.size) as pool:
        return list(pool.map(work, items))


def _compare(found: Finding, clean: Run, run_anyway: Container[str]) -> Finding:
    """Return the finding, with a problem if its test does not pass without the mutant."""
    if found.problem or found.caught_by in clean.passed or found.caught_by.partition("[")[0] in run_anyway:
        return found
    reason = clean.failed.get(found.caught_by) or clean.problem or "it did not run"
    return Finding(found.mutant, found.caught_by, found.reason, found.seconds, f"fails without it too: {reason}")
