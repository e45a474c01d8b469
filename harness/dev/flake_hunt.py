"""Run suites many times to find flaky tests: `make flake N=20 MARK=saga`.

A slice is one test file in one run. Its result is written to reports/flake.json before the next slice begins, so an
interrupted hunt resumes there. A finished hunt, another commit, mark or number of runs starts again. The exit status is
1 if any test failed in any run. A failed test is called flaky if it also passed.

pytest-repeat is no alternative, because it repeats in one process, does not resume, and stores no output of failures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.command_line import run_main
from harness.dev.git import read_revision
from harness.runtime.compose import ROOT
from harness.runtime.signals import interrupt_once

STATE = ROOT / "reports" / "flake.json"
OUTPUT_CHARS = 6000  # stored of the output of a failed slice
NOTHING_SELECTED = 5  # pytest's exit status
CLEANUP_SECONDS = 60  # for an interrupted pytest to end

Pytest = Callable[[Sequence[str]], tuple[int, str]]


@dataclass
class Slice:
    """One test file in one run: its failed tests, and the end of pytest's output if a test failed."""

    run: int
    file: str
    failed: list[str]
    seconds: float
    output: str = ""


@dataclass
class HuntResults:
    """The results of the slices so far."""

    mark: str
    runs: int
    revision: str
    files: list[str]
    slices: list[Slice] = field(default_factory=list)

    @property
    def remaining(self) -> list[tuple[int, str]]:
        """The remaining slices in order, each as (run, file)."""
        done = {(each.run, each.file) for each in self.slices}
        every = [(run, file) for run in range(1, self.runs + 1) for file in self.files]
        return [each for each in every if each not in done]

    @property
    def failures(self) -> Counter[str]:
        """The number of runs in which each test failed."""
        return Counter(test for each in self.slices for test in each.failed)

    def summarize(self) -> list[str]:
        """Return the summary, with one line per failed test."""
        red = {each.run for each in self.slices if each.failed}
        unfinished = {number for number, _ in self.remaining}
        green = set(range(1, self.runs + 1)) - red - unfinished
        took = sum(each.seconds for each in self.slices)
        head = f"{self.mark}: {len(green)} of {self.runs} runs green, {len(self.remaining)} slices left, {took:.0f} s"
        return [head, *(self._describe(test, times) for test, times in self.failures.most_common())]

    def _describe(self, test: str, times: int) -> str:
        file = test.partition("::")[0]
        runs = sum(each.file == file for each in self.slices)
        return f"  {'flaky' if times < runs else 'fails'}: {test} failed in {times} of {runs} runs"


def run(mark: str, runs: int, state: Path, revision: str, pytest: Pytest) -> HuntResults:
    """Run the remaining slices of `runs` runs with `mark`, and write each result to `state`."""
    results = _load_unfinished(state, mark, runs, revision) or HuntResults(
        mark, runs, revision, _collect_files(mark, pytest)
    )
    for number, file in results.remaining:
        results.slices.append(_run_slice(number, file, mark, pytest))
        _save(results, state)
        print(f"run {number}, {file}: {', '.join(results.slices[-1].failed) or 'green'}", flush=True)
    return results


def _collect_files(mark: str, pytest: Pytest) -> list[str]:
    status, output = pytest(["--collect-only", "-q", "-m", mark])
    if status:
        raise SystemExit(f"pytest cannot collect the tests of {mark}:\n{output[-OUTPUT_CHARS:]}")
    return list(dict.fromkeys(line.partition("::")[0] for line in output.splitlines() if "::" in line))


def _run_slice(number: int, file: str, mark: str, pytest: Pytest) -> Slice:
    began = time.monotonic()
    status, output = pytest([file, "-q", "-m", mark])
    failed = [_parse_test_id(line) for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if status not in (0, NOTHING_SELECTED) and not failed:
        failed = [f"{file}::(pytest ended with {status})"]
    return Slice(number, file, failed, time.monotonic() - began, output[-OUTPUT_CHARS:] if failed else "")


def _parse_test_id(line: str) -> str:
    return line.partition(" ")[2].partition(" - ")[0].strip()


def _load_unfinished(state: Path, mark: str, runs: int, revision: str) -> HuntResults | None:
    if not state.exists():
        return None
    content = json.loads(state.read_text())
    results = HuntResults(**{**content, "slices": [Slice(**each) for each in content["slices"]]})
    is_same_hunt = (results.mark, results.runs, results.revision) == (mark, runs, revision)
    return results if is_same_hunt and results.remaining else None


def _save(results: HuntResults, state: Path) -> None:
    """Write atomically, so that a kill during the write loses only one slice."""
    state.parent.mkdir(exist_ok=True)
    unfinished = state.with_suffix(".new")
    unfinished.write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False))
    unfinished.replace(state)


def _run_pytest(arguments: Sequence[str]) -> tuple[int, str]:
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # own group, so that only `_stop` interrupts pytest, with all its processes
    )
    with running:
        try:
            output, _ = running.communicate()
        except KeyboardInterrupt:
            _stop(running)
            raise
    return running.returncode, output


def _stop(running: subprocess.Popen[str]) -> None:
    """Interrupt pytest, wait until it has stopped its processes, then kill the rest."""
    os.killpg(running.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        running.communicate(timeout=CLEANUP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)


def main() -> int:
    """Run the hunt, print the summary and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.dev.flake_hunt", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="number of runs (default: 20)")
    parser.add_argument("--mark", default="saga", help="the suites, as an expression for pytest -m (default: saga)")
    options = parser.parse_args()
    interrupt_once()
    try:
        results = run(options.mark, options.runs, STATE, read_revision(), _run_pytest)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume")
        return 130
    print("\n".join(results.summarize()))
    return 1 if results.failures else 0


if __name__ == "__main__":
    run_main(main)
