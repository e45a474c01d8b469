"""`make interleavings`: explore every pair of flows more deeply than `make verify` does.

    python -m tests.saga.interleavings [--pair WORD] [--seed N] [--minutes N]

A search is one pair in one mode. Its result is written to reports/interleavings.json before the next one, so a run that
was interrupted or reached its time limit resumes there. Another revision starts again. The exit status is 1 if a
schedule failed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from random import Random

from harness.command_line import run_main
from harness.dev.git import read_revision
from harness.runtime.signals import interrupt_once
from tests.saga.interleavings import results_file
from tests.saga.interleavings.exploring import DEEP, Search, SearchReport, explore_all
from tests.saga.interleavings.oracle import DEEP_EXCEPTIONS
from tests.saga.interleavings.pairs import PAIRS
from tests.saga.interleavings.results_file import REPORT

Explore = Callable[[Sequence[Search], float], Iterator[SearchReport]]


def list_searches(word: str, seed: int) -> list[Search]:
    """The searches of the pairs whose name contains `word`, in the order of a seed."""
    searches = [Search(pair, mode) for mode in DEEP for pair in PAIRS if word in pair]
    Random(seed).shuffle(searches)
    return searches


def run(searches: Sequence[Search], report: Path, revision: str, minutes: float, explore: Explore) -> int:
    """Run the searches that have no result yet, until the time limit, and return how many are left."""
    done, deadline = results_file.load(report, revision), time.monotonic() + 60 * minutes
    left = [search for search in searches if str(search) not in done]
    print(f"{len(left)} of {len(searches)} searches are left")
    finished = 0
    for finished, result in enumerate(explore(left, deadline) if left else (), 1):
        results_file.add(report, revision, [result])
        print(_describe(result, f"{finished}/{len(left)}"), flush=True)
    return len(left) - finished


def _describe(report: SearchReport, number: str) -> str:
    states = len({run.state for run in report.executed})
    counts = f"{len(report.executed)} schedules, {states} end states, {report.seconds:.0f} s"
    limit = "" if report.is_complete else ", stopped at its limit"
    return "\n\n".join([f"{number} {report.search}: {counts}{limit}", *report.failures])


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore, print the totals and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.saga.interleavings", description="Explore pairs of flows.")
    parser.add_argument("--pair", default="", metavar="WORD", help="only pairs whose name contains WORD")
    parser.add_argument("--seed", type=int, default=0, help="the order of the searches (default: 0)")
    parser.add_argument("--minutes", type=float, default=inf, help="begin no search after this time (default: none)")
    options = parser.parse_args(arguments)
    interrupt_once()
    searches, revision = list_searches(options.pair, options.seed), read_revision()
    try:
        left = run(searches, REPORT, revision, options.minutes, explore_all)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume")
        return 130
    found = results_file.load(REPORT, revision)
    totals = results_file.count({str(search): found[str(search)] for search in searches if str(search) in found})
    print(", ".join(f"{name.replace('_', ' ')}: {totals[name]}" for name in totals if name != "exceptions"))
    for exception, times in totals["exceptions"].items():
        print(f"{times:6} {exception}")
    if left:
        print(f"{left} searches are left: run the same command again to resume")
    is_full = not left and not options.pair
    unused = [row for row in DEEP_EXCEPTIONS if is_full and not any(str(row) in one for one in totals["exceptions"])]
    for row in unused:
        print(f"no schedule needs the declared exception any more: {row}")
    return 1 if totals["wrong"] or unused else 0


if __name__ == "__main__":
    run_main(main)
