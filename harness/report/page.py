"""Writes reports/index.html from the files in reports/. The page has no script and loads nothing from the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from harness.report import figures, interleavings, matrix
from harness.report.results import Results
from harness.report.sources import Sources
from harness.runtime.compose import ROOT

REPORTS = ROOT / "reports"
MEMORY_LIMIT = 3 * 2**29  # bytes for a full run


def write(reports: Path = REPORTS) -> Path:
    """Write the page of a reports folder and return its path."""
    target = reports / "index.html"
    reports.mkdir(exist_ok=True)
    target.write_text(render(reports), encoding="utf-8")
    return target


def render(reports: Path = REPORTS) -> str:
    """Return the page of a reports folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_duration
    return environment.get_template("page.html").render(build_context(Sources(reports)))


def build_context(sources: Sources) -> dict[str, Any]:
    """Return the variables of the template."""
    results = Results(sources.run)
    committed = sources.read_json("bench-baseline")
    bench = sources.read_json("bench") or committed
    pictures = sources.read_pictures("concurrency")
    return {
        "results": results,
        "run": sources.run,
        "groups": results.groups,
        "departures": results.list_departures(),
        "matrix": matrix.build_matrix(sources.read_json("saga")),
        "interleavings": interleavings.build_pairs(sources.read_json("interleavings")),
        "chaos": sources.read_json("chaos"),
        "chaos_pictures": sources.read_pictures("chaos"),
        "pictures": sorted(pictures, key=lambda picture: picture[0] == "counterexample"),  # the counterexample is last
        "bench_pictures": sources.read_pictures("bench"),
        "concurrency": figures.tabulate(sources.read_json("concurrency")),
        "contract": figures.list_servers(sources.read_json("contract")),
        "access": sources.read_json("access"),
        "invariants": figures.list_invariants(sources.run["invariants"]),
        "controls": figures.count_controls(sources.read_json("mutants"), results),
        "bench": figures.compare_bench(bench, committed),
        "against": sources.read_json("bench-against"),
        "bench_at": (bench or {}).get("at", "")[:10],
        "is_committed_bench": bench is committed,
        "coverage": figures.sum_coverage(sources.read_json("coverage")),
        "stale": sources.stale,
        "memory_limit": MEMORY_LIMIT,
    }


def format_duration(seconds: float) -> str:
    """Return minutes and seconds: 763 becomes `12 min 43 s`."""
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
