"""The two questions of a control: do the named tests pass on the project as it is, and fail with the mutant in it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tests.mutants.mutant import Mutant, Stale
from tests.mutants.sandbox import ROOT, Laboratory, Trial

T = TypeVar("T")
R = TypeVar("R")
NAMED_SECONDS = 60.0  # for the tests that a mutant names: far more than any of them takes
CLEAN_SECONDS = 300.0  # for all named tests together
ELSE_SECONDS, DEEP_SECONDS = 120.0, 900.0  # how long everything else has to notice a mutant
UNIT = ROOT / "tests" / "unit"
SLOW = (  # brokers, processes, fifty thousand seats
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
    """What came of one mutant. `trouble` is why it proves nothing: empty, or the control has failed."""

    mutant: Mutant
    caught_by: str = ""
    reason: str = ""
    seconds: float = 0.0
    trouble: str = ""


def examine(lab: Laboratory, mutants: Sequence[Mutant]) -> list[Finding]:
    """Each mutant against the tests that it names, and those tests against the project as it is."""
    clean = examine_clean(lab, named_tests(mutants))
    slowest_first = sorted(mutants, key=lambda mutant: "/saga/" not in mutant.caught_by[0])
    planted = dict(zip(slowest_first, side_by_side(lab, lambda one: plant(lab, one), slowest_first), strict=True))
    return [_judged(planted[mutant], clean) for mutant in mutants]


def examine_clean(lab: Laboratory, tests: Sequence[str], seed: int = 0) -> Trial:
    """These tests on the project as it is, shared out by their files; in an order and with examples of the seed's."""
    options = [f"--hypothesis-seed={seed}"] if seed else []
    files = sorted({test.partition("::")[0] for test in tests}, key=lambda file: "/saga/" not in file)
    shares = [
        [test for test in tests if test.partition("::")[0] in files[turn :: lab.size]] for turn in range(lab.size)
    ]
    trials = side_by_side(
        lab, lambda share: lab.run_clean([*options, *share], CLEAN_SECONDS, seed), [s for s in shares if s]
    )
    return Trial(
        failed={node: why for trial in trials for node, why in trial.failed.items()},
        passed=tuple(node for trial in trials for node in trial.passed),
        trouble="; ".join(trial.trouble for trial in trials if trial.trouble),
        seconds=max(trial.seconds for trial in trials),
    )


def plant(lab: Laboratory, mutant: Mutant) -> Finding:
    """The mutant against the tests that it names."""
    try:
        trial = lab.run_planted(mutant, mutant.caught_by, NAMED_SECONDS)
    except Stale as stale:
        return Finding(mutant, trouble=f"stale: {stale}")
    if not trial.failed:
        return Finding(mutant, seconds=trial.seconds, trouble=trial.trouble or "survived the tests that it names")
    test, reason = next(iter(trial.failed.items()))
    return Finding(mutant, test, reason, trial.seconds, trial.trouble)


def noticed_elsewhere(lab: Laboratory, mutant: Mutant, *, deep: bool = False) -> str:
    """The first test of everything else that fails with the mutant in it; or why there is none to tell.

    Everything is the unit tests of its area and the saga tests that need no processes; `deep`: all of both suites.
    """
    suites = ["tests/unit", "tests/saga"] if deep else _quick(mutant.area)
    others = [*suites, *(f"--deselect={test}" for test in mutant.caught_by)]
    try:
        trial = lab.run_planted(mutant, others, DEEP_SECONDS if deep else ELSE_SECONDS)
    except Stale:
        return "stale"
    return next(iter(trial.failed), trial.trouble or "no other")


def _quick(area: str) -> list[str]:
    units = UNIT.glob("**/test_*.py" if area == "chassis" else f"{area}/test_*.py")
    saga = ROOT / "tests" / "saga"
    sagas = [saga / "in_process" / "test_guards.py", *sorted((saga / "interleavings").glob("test_*.py"))]
    quick = [file for file in sorted(units) if not str(file.relative_to(UNIT)).startswith(SLOW)]
    return [str(file.relative_to(ROOT)) for file in (*quick, *sagas)]


def named_tests(mutants: Iterable[Mutant]) -> list[str]:
    """Every test that some mutant names, once."""
    return list(dict.fromkeys(test for mutant in mutants for test in mutant.caught_by))


def side_by_side(lab: Laboratory, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` on every item, as many at once as the laboratory has benches."""
    with ThreadPoolExecutor(lab.size) as pool:
        return list(pool.map(work, items))


def _judged(found: Finding, clean: Trial) -> Finding:
    """A test that fails without the mutant too has caught nothing."""
    if found.trouble or found.caught_by in clean.passed:
        return found
    reason = clean.failed.get(found.caught_by) or clean.trouble or "it did not run"
    return Finding(found.mutant, found.caught_by, found.reason, found.seconds, f"fails without it too: {reason}")
