"""`make mutants`: check that a test catches each mutant, and that the same tests pass without it under N seeds.

    python -m tests.mutants [--seeds N] [--only WORD] [--deep]

It prints a table and writes reports/mutants.json. The exit status is 1 if a mutant survives or proves nothing, or if a
seed fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.command_line import run_main
from tests.mutants.mutant import Mutant, read_mutants
from tests.mutants.runs import Finding, examine, find_other_catcher, list_named_tests, map_concurrently, run_clean
from tests.mutants.sandbox import ROOT, Sandbox, open_sandbox

REPORT = ROOT / "reports" / "mutants.json"


@dataclass(frozen=True)
class SeedRun:
    """A run of all named tests without a mutant, in the order of one seed."""

    seed: int
    passed: int
    seconds: float
    problem: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and return the exit status."""
    options = _build_parser().parse_args(arguments)
    mutants = [mutant for mutant in read_mutants() if options.only in mutant.name]
    with open_sandbox() as sandbox:
        seeds = [_run_seed(sandbox, seed, list_named_tests(mutants)) for seed in range(1, options.seeds + 1)]
        findings = examine(sandbox, mutants)
        others = map_concurrently(sandbox, lambda mutant: _find_other(sandbox, mutant, options.deep), mutants)
    print("mutant | caught by | seconds")
    for found, other in zip(findings, others, strict=True):
        print(_format_row(found, other))
    return _report(seeds, findings, others)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Check that tests catch each mutant.")
    parser.add_argument("--seeds", type=int, default=20, help="runs without a mutant (default: 20)")
    parser.add_argument("--only", default="", metavar="WORD", help="only mutants whose name contains WORD")
    parser.add_argument(
        "--deep", action="store_true", help="search all unit and saga tests for a further test that catches each mutant"
    )
    return parser


def _run_seed(sandbox: Sandbox, seed: int, tests: Sequence[str]) -> SeedRun:
    start = time.monotonic()
    run = run_clean(sandbox, tests, seed)
    problem = run.problem or "; ".join(f"{node}: {reason}" for node, reason in run.failed.items())
    result = SeedRun(seed, len(run.passed), round(time.monotonic() - start, 1), problem)
    print(f"clean, seed {seed}: {result.passed} passed in {result.seconds} s {result.problem}", flush=True)
    return result


def _find_other(sandbox: Sandbox, mutant: Mutant, deep: bool) -> str:
    other = find_other_catcher(sandbox, mutant, deep=deep)
    print(f"{mutant.name}: also {other}", file=sys.stderr, flush=True)
    return other


def _format_row(found: Finding, other: str) -> str:
    caught = found.problem.upper() if found.problem else _shorten(found.caught_by)
    return f"{found.mutant.name} | {caught}, also {_shorten(other)} | {found.seconds:.1f}"


def _shorten(node: str) -> str:
    return node.partition("::")[2] or node


def _report(seeds: Sequence[SeedRun], findings: Sequence[Finding], others: Sequence[str]) -> int:
    red, missed = [s for s in seeds if s.problem], [found for found in findings if found.problem]
    rows = [build_entry(found, other) for found, other in zip(findings, others, strict=True)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"seeds": [asdict(s) for s in seeds], "mutants": rows}, indent=1, ensure_ascii=False))
    print(f"{len(seeds) - len(red)} of {len(seeds)} seeds passed", end=", ")
    print(f"{len(findings) - len(missed)} of {len(findings)} mutants caught: reports/{REPORT.name}")
    return 1 if red or missed else 0


def build_entry(found: Finding, other: str) -> dict[str, Any]:
    """Return the entry of a mutant in reports/mutants.json, which the report reads."""
    mutant, is_caught = asdict(found.mutant), not found.problem
    by = [test for test in (found.caught_by, other) if "::" in test]
    result = {"reason": found.reason, "seconds": found.seconds, "problem": found.problem, "elsewhere": other}
    return {**mutant, "named": mutant["caught_by"], "caught": is_caught, "caught_by": by, **result}


if __name__ == "__main__":
    run_main(main)
