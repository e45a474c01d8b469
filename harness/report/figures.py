"""The figures of the suites as rows for the page. A missing file gives None, which the page reports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness import invariants as checks
from harness.report.results import Results

WARN = 0.2  # the page marks a ratio that differs from the committed run by more than this share


def flatten(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every figure of a document with its path in words."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from flatten(value, f"{path} · {name}" if path else str(name))
    elif not isinstance(content, list):
        yield path, content


def tabulate(content: Any) -> list[tuple[str, list[tuple[str, str]]]] | None:
    """Return each subject with the names and values of its figures."""
    if not isinstance(content, Mapping):
        return None
    return [
        (subject, [(name, _format(value)) for name, value in flatten(figures)]) for subject, figures in content.items()
    ]


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# ── contract


def list_servers(content: Any) -> list[dict[str, Any]] | None:
    """Return the operations and documented responses of each server, and how many of them were reached."""
    if not isinstance(content, Mapping):
        return None
    return [{"server": server, **figures} for server, figures in content.get("servers", content).items()]


# ── coverage


def sum_coverage(content: Any) -> list[tuple[str, int, float]] | None:
    """Return the number of statements of each service and the share that was covered."""
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


def list_invariants(counts: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Return the name and the rule of each invariant, and the number of its checks."""
    every = (*checks.AT_ANY_TIME, *checks.AT_QUIESCENCE)
    rows = [(check.__name__, inspect.getdoc(check) or "", counts.get(check.__name__, 0)) for check in every]
    rows.append(
        ("i7_sagas_end", "Every saga has ended, or is parked where a test expects it.", counts.get("i7_sagas_end", 0))
    )
    return sorted(rows, key=lambda row: int(re.sub(r"\D.*", "", row[0][1:])))


# ── controls


@dataclass(frozen=True)
class Controls:
    """Defects that were made on purpose, and whether a check found them."""

    tests: list[tuple[str, int, int]]  # function, its cases, its passed cases
    mutants: list[tuple[str, bool, str]] | None  # defect, whether a test caught it, the test

    @property
    def caught(self) -> int:
        """The number of controls in the suites that were caught. Mutants are counted apart."""
        return sum(passed for _, _, passed in self.tests)

    @property
    def total(self) -> int:
        """The number of controls in the suites."""
        return sum(cases for _, cases, _ in self.tests)


def count_controls(mutants: Any, results: Results) -> Controls:
    """Return the tests with the marker `negative_control` that ran, and the mutants if `make mutants` has run."""
    found: dict[str, list[bool]] = {}
    for test in results.run["controls"]:
        if outcome := results.outcomes.get(test):
            found.setdefault(test.partition("[")[0].removeprefix("tests/"), []).append(outcome == "passed")
    return Controls([(name, len(cases), sum(cases)) for name, cases in found.items()], _list_mutants(mutants))


def _list_mutants(content: Any) -> list[tuple[str, bool, str]] | None:
    if not content:
        return None
    return [
        (row["name"], row["caught"], row["problem"] or " and ".join(row["caught_by"])) for row in content["mutants"]
    ]


# ── bench


@dataclass(frozen=True)
class BenchRow:
    """A ratio of the bench with its interval and bounds, and the same ratio in the last committed run.

    `served_by` is the number of processes of services that served it. `bounds` is None for a row that only informs.
    """

    name: str
    unit: str
    measured: float
    interval: tuple[float, float]
    served_by: int
    bounds: Mapping[str, Any] | None
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


def compare_bench(now: Any, committed: Any) -> list[BenchRow] | None:
    """Return every row of a bench, or None if it has not run. Only rows of the same unit are compared."""
    if not now:
        return None
    before = {(row["name"], row["unit"]): row["measured"] for row in (committed or {}).get("rows", [])}
    fields = ("name", "unit", "measured", "interval", "served_by", "bounds", "verdict", "raw")
    return [
        BenchRow(**{field: row[field] for field in fields}, committed=before.get((row["name"], row["unit"])))
        for row in now.get("rows", [])
    ]
