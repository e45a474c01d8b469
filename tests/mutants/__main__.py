"""`make mutants`: the project passes under N seeds; each mutant is caught by a test that it names, and by which others.

    python -m tests.mutants [--seeds N] [--only WORD] [--deep]

Prints a table, writes reports/mutants.json, ends with 1 when a mutant survives, proves nothing, or a seed is red.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.mutants.mutant import Mutant, load
from tests.mutants.runs import Finding, examine, examine_clean, named_tests, noticed_elsewhere, side_by_side
from tests.mutants.sandbox import ROOT, Laboratory, laboratory

REPORT = ROOT / "reports" / "mutants.json"


@dataclass(frozen=True)
class Seed:
    """One run of all named tests on the project as it is."""

    seed: int
    passed: int
    seconds: float
    trouble: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it all; the exit status."""
    options = _parser().parse_args(arguments)
    mutants = [mutant for mutant in load() if options.only in mutant.name]
    with laboratory() as lab:
        seeds = [_sown(lab, seed, named_tests(mutants)) for seed in range(1, options.seeds + 1)]
        findings = examine(lab, mutants)
        others = side_by_side(lab, lambda mutant: _noticed(lab, mutant, options.deep), mutants)
    print("mutant | caught by | seconds")
    for found, other in zip(findings, others, strict=True):
        print(_row(found, other))
    return _told(seeds, findings, others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Planted defects, and who finds them.")
    parser.add_argument("--seeds", type=int, default=20, help="runs of the project as it is (default: 20)")
    parser.add_argument("--only", default="", metavar="WORD", help="the mutants whose name contains this")
    parser.add_argument(
        "--deep", action="store_true", help="look at the whole unit and saga suites for who else notices"
    )
    return parser


def _sown(lab: Laboratory, seed: int, tests: Sequence[str]) -> Seed:
    began = time.monotonic()
    trial = examine_clean(lab, tests, seed)
    trouble = trial.trouble or "; ".join(f"{node}: {why}" for node, why in trial.failed.items())
    sown = Seed(seed, len(trial.passed), round(time.monotonic() - began, 1), trouble)
    print(f"clean, seed {seed}: {sown.passed} passed in {sown.seconds} s {sown.trouble}", flush=True)
    return sown


def _noticed(lab: Laboratory, mutant: Mutant, deep: bool) -> str:
    other = noticed_elsewhere(lab, mutant, deep=deep)
    print(f"{mutant.name}: also {other}", file=sys.stderr, flush=True)
    return other


def _row(found: Finding, other: str) -> str:
    caught = found.trouble.upper() if found.trouble else _short(found.caught_by)
    return f"{found.mutant.name} | {caught}; also {_short(other)} | {found.seconds:.1f}"


def _short(node: str) -> str:
    return node.partition("::")[2] or node


def _told(seeds: Sequence[Seed], findings: Sequence[Finding], others: Sequence[str]) -> int:
    red, troubled = [s for s in seeds if s.trouble], [found for found in findings if found.trouble]
    rows = [_entry(found, other) for found, other in zip(findings, others, strict=True)]
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"seeds": [asdict(s) for s in seeds], "mutants": rows}, indent=1, ensure_ascii=False))
    print(f"{len(seeds) - len(red)} of {len(seeds)} clean seeds green", end=", ")
    print(f"{len(findings) - len(troubled)} of {len(findings)} mutants caught: reports/{REPORT.name}")
    return 1 if red or troubled else 0


def _entry(found: Finding, other: str) -> dict[str, Any]:
    planted, caught = asdict(found.mutant), not found.trouble
    by = [test for test in (found.caught_by, other) if "::" in test]
    came = {"reason": found.reason, "seconds": found.seconds, "trouble": found.trouble, "elsewhere": other}
    return {**planted, "named": planted["caught_by"], "caught": caught, "caught_by": by, **came}


if __name__ == "__main__":
    sys.exit(main())
