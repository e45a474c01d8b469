"""Draws reports/index.html from what the last run left in reports/*.json: one file, no network, no script.

python -m harness.report
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from harness.report import figures, matrix
from harness.report.results import Results
from harness.report.sources import Sources
from harness.runtime.compose import ROOT

REPORTS = ROOT / "reports"
MEMORY_LIMIT = 3 * 2**29  # bytes that a whole run may take


def write(reports: Path = REPORTS) -> Path:
    """Draw the page of what lies in `reports`; where it is."""
    target = reports / "index.html"
    reports.mkdir(exist_ok=True)
    target.write_text(draw(reports), encoding="utf-8")
    return target


def draw(reports: Path = REPORTS) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    return environment.get_template("page.html").render(context(Sources(reports)))


def context(sources: Sources) -> dict[str, Any]:
    """Everything that the template shows."""
    results = Results(sources.run)
    baseline = sources.json("bench-baseline")
    bench = sources.json("bench") or baseline
    return {
        "results": results,
        "run": sources.run,
        "groups": results.groups(),
        "departures": results.departures(),
        "matrix": matrix.of(sources.json("saga")),
        "pictures": sorted(sources.pictures("concurrency"), key=lambda picture: picture[0] == "counterexample"),  # last
        "bench_pictures": sources.pictures("bench"),
        "concurrency": figures.table(sources.json("concurrency")),
        "contract": figures.contract(sources.json("contract")),
        "invariants": figures.invariants(sources.run["invariants"]),
        "controls": figures.controls(sources.json("mutants"), results),
        "bench": figures.bench(bench, baseline),
        "bench_at": (bench or {}).get("at", "")[:10],
        "is_baseline": bench is baseline,
        "coverage": figures.coverage(sources.json("coverage")),
        "stale": sources.stale,
        "memory_limit": MEMORY_LIMIT,
    }


def clock(seconds: float) -> str:
    """763 → 12:43."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
