"""Claims ⇔ tests ⇔ what came of them: the verdict, and what stands behind it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.report import claims
from harness.report.claims import Claim, Departure

UNPROVEN = ("failed", "untested", "not run")
SUITES = ("unit", "contract", "saga", "concurrency", "e2e")


@dataclass(frozen=True)
class Proof:
    """The tests of one function that carry a claim: how many there are, and how many did what."""

    name: str
    outcomes: Counter[str]

    @property
    def file(self) -> str:
        """Where it is."""
        return self.name.partition("::")[0]

    @property
    def words(self) -> str:
        """Its name, which says what comes of it."""
        return self.name.rpartition("::")[2].removeprefix("test_").replace("_", " ")

    @property
    def count(self) -> int:
        """How many."""
        return self.outcomes.total()

    @property
    def passed(self) -> bool:
        """Whether all that ran passed, and one did."""
        return bool(self.outcomes["passed"]) and not self.outcomes["failed"]


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict: proven, failed, untested, not run, or open."""

    claim: Claim
    verdict: str
    proofs: tuple[Proof, ...]

    @property
    def proven(self) -> bool:
        """Whether a test carries it that passed, and none that failed."""
        return self.verdict == "proven"

    @property
    def tests(self) -> int:
        """How many tests carry it."""
        return sum(proof.count for proof in self.proofs)


@dataclass(frozen=True)
class JudgedGroup:
    """A group of claims with their verdicts."""

    section: str
    title: str
    claims: tuple[Judged, ...]

    @property
    def proven(self) -> int:
        """How many are proven."""
        return sum(judged.proven for judged in self.claims)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong here; what is open is told at the top."""
        return all(judged.verdict in ("proven", "open") for judged in self.claims)


class Results:
    """One run, judged."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run = run
        self.outcomes: dict[str, str] = {test: outcome for test, (outcome, _) in run["tests"].items()}

    # ── the verdict

    @cached_property
    def judged(self) -> list[Judged]:
        """Every claim."""
        return [judged for group in self.groups() for judged in group.claims]

    @property
    def proven(self) -> int:
        """How many claims are."""
        return sum(judged.proven for judged in self.judged)

    @property
    def unproven(self) -> list[Judged]:
        """The claims that ought to be proven and are not: what failed, what has no test, what did not run."""
        of = {verdict: [judged for judged in self.judged if judged.verdict == verdict] for verdict in UNPROVEN}
        return [judged for verdict in UNPROVEN for judged in of[verdict]]

    @property
    def open(self) -> list[Judged]:
        """The claims that nobody has built yet."""
        return [judged for judged in self.judged if judged.verdict == "open"]

    @cached_property
    def counts(self) -> Counter[str]:
        """Tests by outcome."""
        return Counter(self.outcomes.values())

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Failures, with what it takes to replay them."""
        return list(self.run["failures"])

    @property
    def stands(self) -> bool:
        """Whether the run says that everything holds."""
        return self.run["exit"] == 0 and not self.unproven and bool(self.outcomes)

    # ── what stands behind it

    def groups(self) -> list[JudgedGroup]:
        """Every claim with its verdict, in the reference's order."""
        return [JudgedGroup(g.section, g.title, tuple(map(self._judge, g.claims))) for g in claims.groups()]

    def _judge(self, claim: Claim) -> Judged:
        tests = self.run["claims"].get(claim.id, [])
        proofs = tuple(_proofs((test, self.outcomes.get(test, "not run")) for test in tests))
        total = sum((proof.outcomes for proof in proofs), Counter())
        return Judged(claim, _verdict(claim, total, whole=self.run["whole"]), proofs)

    def departures(self) -> list[tuple[Departure, list[Judged]]]:
        """Each departure with the claims that it concerns."""
        concerned = defaultdict(list)
        for judged in self.judged:
            concerned[judged.claim.departs].append(judged)
        return [(departure, concerned[departure.id]) for departure in claims.departures().values()]

    def suites(self) -> list[tuple[str, Counter[str], float]]:
        """Each suite with its outcomes and its time in seconds."""
        outcomes: dict[str, Counter[str]] = {suite: Counter() for suite in SUITES}
        seconds: Counter[str] = Counter()
        for test, (outcome, took) in self.run["tests"].items():
            suite = test.split("/")[1]
            outcomes.setdefault(suite, Counter())[outcome] += 1
            seconds[suite] += took
        return [(suite, found, seconds[suite]) for suite, found in outcomes.items() if found]

    def slowest(self, number: int = 10) -> list[tuple[str, float]]:
        """The tests that took longest, a fixture's time with the first test that asks for it."""
        timed = ((test, seconds) for test, (_, seconds) in self.run["tests"].items())
        return sorted(timed, key=lambda entry: -entry[1])[:number]


def _verdict(claim: Claim, total: Counter[str], *, whole: bool) -> str:
    if claim.open:
        return "open"
    if not total:
        return "untested" if whole else "not run"
    if total["failed"]:
        return "failed"
    return "proven" if total["passed"] else "not run"


def _proofs(tests: Iterable[tuple[str, str]]) -> list[Proof]:
    """Tests function by function: the cases of one say the same."""
    found: dict[str, Counter[str]] = {}
    for test, outcome in tests:
        found.setdefault(test.partition("[")[0], Counter())[outcome] += 1
    return [Proof(name.removeprefix("tests/"), outcomes) for name, outcomes in found.items()]
