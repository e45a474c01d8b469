"""The verdict on a run: each claim with its tests and their outcomes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.report.claims import Claim, Departure, read_departures, read_groups

UNPROVEN = ("failed", "untested", "not run")
SUITES = ("unit", "contract", "saga", "chaos", "ha", "concurrency", "abuse", "e2e")


@dataclass(frozen=True)
class Proof:
    """A test function that carries a claim, with the outcomes of its cases."""

    name: str
    outcomes: Counter[str]

    @property
    def file(self) -> str:
        """The file of the function."""
        return self.name.partition("::")[0]

    @property
    def title(self) -> str:
        """The name of the function in words."""
        return self.name.rpartition("::")[2].removeprefix("test_").replace("_", " ")

    @property
    def count(self) -> int:
        """The number of its cases."""
        return self.outcomes.total()

    @property
    def has_passed(self) -> bool:
        """Whether at least one case passed and none failed."""
        return bool(self.outcomes["passed"]) and not self.outcomes["failed"]


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict: proven, failed, untested, not run, or open."""

    claim: Claim
    verdict: str
    proofs: tuple[Proof, ...]

    @property
    def is_proven(self) -> bool:
        """Whether a test of the claim passed and none failed."""
        return self.verdict == "proven"

    @property
    def tests(self) -> int:
        """The number of tests that carry the claim."""
        return sum(proof.count for proof in self.proofs)


@dataclass(frozen=True)
class GroupResult:
    """A group of claims with their verdicts."""

    section: str
    title: str
    claims: tuple[ClaimResult, ...]

    @property
    def proven(self) -> int:
        """The number of proven claims."""
        return sum(result.is_proven for result in self.claims)

    @property
    def is_complete(self) -> bool:
        """Whether every claim is proven or open."""
        return all(result.verdict in ("proven", "open") for result in self.claims)


class Results:
    """The results of one run, from reports/run.json."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run = run
        self.outcomes: dict[str, str] = {test: outcome for test, (outcome, _) in run["tests"].items()}

    # ── the verdict

    @cached_property
    def claims(self) -> list[ClaimResult]:
        """Every claim with its verdict."""
        return [result for group in self.groups for result in group.claims]

    @property
    def proven(self) -> int:
        """The number of proven claims."""
        return sum(result.is_proven for result in self.claims)

    @property
    def unproven(self) -> list[ClaimResult]:
        """The claims that failed, then those without a test, then those whose tests did not run."""
        return [result for verdict in UNPROVEN for result in self.claims if result.verdict == verdict]

    @property
    def open(self) -> list[ClaimResult]:
        """The claims that are not built yet."""
        return [result for result in self.claims if result.verdict == "open"]

    @cached_property
    def counts(self) -> Counter[str]:
        """The number of tests by outcome."""
        return Counter(self.outcomes.values())

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The failures, each with the command that reruns it."""
        return list(self.run["failures"])

    @property
    def is_proven(self) -> bool:
        """Whether the run passed and every claim that is built is proven."""
        return self.run["exit"] == 0 and not self.unproven and bool(self.outcomes)

    # ── the evidence

    @cached_property
    def groups(self) -> list[GroupResult]:
        """Every claim with its verdict, by group in the order of the reference."""
        return [GroupResult(g.section, g.title, tuple(map(self._judge, g.claims))) for g in read_groups()]

    def _judge(self, claim: Claim) -> ClaimResult:
        tests = self.run["claims"].get(claim.id, [])
        proofs = tuple(_group_by_function((test, self.outcomes.get(test, "not run")) for test in tests))
        total = sum((proof.outcomes for proof in proofs), Counter())
        return ClaimResult(claim, _judge(claim, total, is_full_run=self.run["full_run"]), proofs)

    def list_departures(self) -> list[tuple[Departure, list[ClaimResult]]]:
        """Return each departure with its claims."""
        by_departure = defaultdict(list)
        for result in self.claims:
            by_departure[result.claim.departs].append(result)
        return [(departure, by_departure[departure.id]) for departure in read_departures().values()]

    def list_suites(self) -> list[tuple[str, Counter[str], float]]:
        """Return each suite with its outcomes and its seconds."""
        outcomes: dict[str, Counter[str]] = {suite: Counter() for suite in SUITES}
        seconds: Counter[str] = Counter()
        for test, (outcome, duration) in self.run["tests"].items():
            suite = test.split("/")[1]
            outcomes.setdefault(suite, Counter())[outcome] += 1
            seconds[suite] += duration
        return [(suite, found, seconds[suite]) for suite, found in outcomes.items() if found]

    def list_slowest(self, number: int = 10) -> list[tuple[str, float]]:
        """Return the slowest tests. The time of a fixture counts for the first test that uses it."""
        timed = ((test, seconds) for test, (_, seconds) in self.run["tests"].items())
        return sorted(timed, key=lambda entry: -entry[1])[:number]


def _judge(claim: Claim, total: Counter[str], *, is_full_run: bool) -> str:
    if claim.open:
        return "open"
    if not total:
        return "untested" if is_full_run else "not run"
    if total["failed"]:
        return "failed"
    return "proven" if total["passed"] else "not run"


def _group_by_function(tests: Iterable[tuple[str, str]]) -> list[Proof]:
    found: dict[str, Counter[str]] = {}
    for test, outcome in tests:
        found.setdefault(test.partition("[")[0], Counter())[outcome] += 1
    return [Proof(name.removeprefix("tests/"), outcomes) for name, outcomes in found.items()]
