"""What the suites measured, as rows for the page. Whatever has not been written is None, and the page says so."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness import invariants as checks
from harness.report.results import Results

WARN = 0.2  # a ratio that has moved this far from the baseline is worth a look


def flat(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every figure of a document with its path in words."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from flat(value, f"{path} · {name}" if path else str(name))
    elif not isinstance(content, list):
        yield path, content


def table(content: Any) -> list[tuple[str, list[tuple[str, str]]]] | None:
    """Subject by subject, its figures."""
    if not isinstance(content, Mapping):
        return None
    return [(subject, [(name, _shown(value)) for name, value in flat(figures)]) for subject, figures in content.items()]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# ── contract


def contract(content: Any) -> list[dict[str, Any]] | None:
    """Server by server: operations and documented answers, and how many were reached."""
    if not isinstance(content, Mapping):
        return None
    return [{"server": server, **figures} for server, figures in content.get("servers", content).items()]


# ── coverage


def coverage(content: Any) -> list[tuple[str, int, float]] | None:
    """Service by service: how many statements, and what share of them was come to."""
    if not content:
        return None
    statements: dict[str, int] = {}
    covered: dict[str, int] = {}
    for path, file in content["files"].items():
        service = path.split("/")[1]
        statements[service] = statements.get(service, 0) + file["summary"]["num_statements"]
        covered[service] = covered.get(service, 0) + file["summary"]["covered_lines"]
    return [(service, total, covered[service] / total) for service, total in statements.items() if total]


# ── invariants


def invariants(counted: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Each invariant: its name, what it says, how often it was checked."""
    every = (*checks.AT_ANY_TIME, *checks.AT_QUIESCENCE)
    rows = [(check.__name__, inspect.getdoc(check) or "", counted.get(check.__name__, 0)) for check in every]
    rows.append(
        ("i7_sagas_end", "Every saga is terminal, or parked where that was expected.", counted.get("i7_sagas_end", 0))
    )
    return sorted(rows, key=lambda row: int(re.sub(r"\D.*", "", row[0][1:])))


# ── controls


@dataclass(frozen=True)
class Controls:
    """Guards that were taken away on purpose: whether that was seen."""

    tests: list[tuple[str, int, int]]  # function, cases, of which passed
    mutants: list[tuple[str, bool, str]] | None  # what was planted, whether it was caught, by what

    @property
    def caught(self) -> int:
        """How many were seen in this run; `make mutants` plants the same once more, and counts for itself."""
        return sum(passed for _, _, passed in self.tests)

    @property
    def planted(self) -> int:
        """Of how many."""
        return sum(cases for _, cases, _ in self.tests)


def controls(mutants: Any, results: Results) -> Controls:
    """The tests with the marker `negative_control` that ran, and the mutants of `make mutants` if it has run."""
    found: dict[str, list[bool]] = {}
    for test in results.run["controls"]:
        if outcome := results.outcomes.get(test):
            found.setdefault(test.partition("[")[0].removeprefix("tests/"), []).append(outcome == "passed")
    return Controls([(name, len(cases), sum(cases)) for name, cases in found.items()], _mutants(mutants))


def _mutants(content: Any) -> list[tuple[str, bool, str]] | None:
    if not content:
        return None
    return [
        (row["mutant"]["name"], not row["trouble"], row["trouble"] or row["caught_by"]) for row in content["mutants"]
    ]


# ── bench


@dataclass(frozen=True)
class BenchRow:
    """A ratio of the bench with its limit, and the same ratio in the last committed run."""

    name: str
    measured: float
    limit: float
    verdict: str
    raw: str
    committed: float | None

    @property
    def change(self) -> float | None:
        """The change since the committed run, as a share of the committed ratio."""
        return (self.measured - self.committed) / self.committed if self.committed else None

    @property
    def has_warning(self) -> bool:
        """Whether the ratio misses its limit or has changed by more than WARN."""
        return self.verdict == "MISSED" or (self.change is not None and abs(self.change) > WARN)


def bench(now: Any, committed: Any) -> list[BenchRow] | None:
    """Return every row of a bench, compared with the committed run. None if the bench has not run."""
    if not now:
        return None
    before = {row["name"]: row["measured"] for row in (committed or {}).get("rows", [])}
    return [
        BenchRow(row["name"], row["measured"], row["limit"], row["verdict"], row["raw"], before.get(row["name"]))
        for row in now.get("rows", [])
    ]
