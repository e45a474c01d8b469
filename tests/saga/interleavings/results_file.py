"""Writes reports/interleavings.json: the searches of this revision so far, and their totals.

`make verify` and `make interleavings` add their searches. Another revision starts again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2s
from pathlib import Path
from typing import Any

from harness.runtime.compose import ROOT
from tests.saga.interleavings.exploring import Search, SearchReport
from tests.saga.interleavings.pairs import PAIRS

REPORT = ROOT / "reports" / "interleavings.json"

Row = Mapping[str, Any]


def load(path: Path, revision: str) -> dict[str, Row]:
    """Return the finished searches of a revision by name."""
    content = json.loads(path.read_text()) if path.exists() else {}
    return dict(content["searches"]) if content.get("revision") == revision else {}


def add(path: Path, revision: str, reports: Iterable[SearchReport]) -> None:
    """Add searches. A kill during the write loses none of the earlier ones."""
    searches = load(path, revision) | {str(report.search): _build_row(report) for report in reports}
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".new")
    content = {"revision": revision, **count(searches), "searches": searches}
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    unfinished.replace(path)


def count(searches: Mapping[str, Row]) -> dict[str, Any]:
    """Return the totals. The names of an end state do not depend on the pair, so pairs can share one."""
    exceptions: Counter[str] = Counter()
    for row in searches.values():
        exceptions.update(row["exceptions"])
    return {
        "pairs": len({row["pair"] for row in searches.values()}),
        "schedules": sum(row["schedules"] for row in searches.values()),
        "distinct_end_states": len({state for row in searches.values() for state in row["end_states"]}),
        "wrong": sum(bool(row["failures"]) for row in searches.values()),
        "exceptions": dict(exceptions.most_common()),
    }


def _build_row(report: SearchReport) -> Row:
    search: Search = report.search
    states = {blake2s(run.state.encode(), digest_size=6).hexdigest() for run in report.executed}
    return {
        "pair": search.pair,
        "a": PAIRS[search.pair].a,
        "b": PAIRS[search.pair].b,
        "mode": search.mode,
        "schedules": len(report.executed),
        "outcomes": len({run.outcome for run in report.executed}),
        "end_states": sorted(states),
        "exceptions": dict(Counter(run.exception for run in report.executed if run.exception)),
        "failures": report.failures,
        "is_complete": report.is_complete,
        "seconds": round(report.seconds, 1),
    }
