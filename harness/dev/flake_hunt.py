"""Runs suites again and again, to find the tests that fail now and then: `make flake N=20 MARK=saga`.

The work is cut into slices, one test file in one of the runs; what came of each is written to reports/flake.json before
the next begins. Whoever is interrupted goes on where it was; another commit, mark or number of runs begins anew, and
so does a finished tally. Exit status 1 when any test failed in any run; those that also passed are called flaky.
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

from harness.dev.git import run_git
from harness.runtime.compose import ROOT
from harness.runtime.signals import interrupt_once

STATE = ROOT / "reports" / "flake.json"
KEPT_CHARS = 6000  # of a failing slice's output
NOTHING_SELECTED = 5  # pytest's exit status
TIDY_SECONDS = 60  # for a pytest that is interrupted

Pytest = Callable[[Sequence[str]], tuple[int, str]]


@dataclass
class Slice:
    """One file in one run: which of its tests failed, and the end of what pytest said when some did."""

    run: int
    file: str
    failed: list[str]
    seconds: float
    output: str = ""


@dataclass
class Tally:
    """What has come of the slices so far."""

    mark: str
    runs: int
    revision: str
    files: list[str]
    slices: list[Slice] = field(default_factory=list)

    @property
    def left(self) -> list[tuple[int, str]]:
        """The slices that are still to be run, in order."""
        done = {(each.run, each.file) for each in self.slices}
        every = [(run, file) for run in range(1, self.runs + 1) for file in self.files]
        return [each for each in every if each not in done]

    @property
    def failures(self) -> Counter[str]:
        """In how many runs each test failed."""
        return Counter(test for each in self.slices for test in each.failed)

    def lines(self) -> list[str]:
        """The tally for people."""
        red = {each.run for each in self.slices if each.failed}
        cut = {number for number, _ in self.left}
        green = set(range(1, self.runs + 1)) - red - cut
        took = sum(each.seconds for each in self.slices)
        head = f"{self.mark}: {len(green)} of {self.runs} runs green, {len(self.left)} slices left, {took:.0f} s"
        return [head, *(self._told(test, times) for test, times in self.failures.most_common())]

    def _told(self, test: str, times: int) -> str:
        file = test.partition("::")[0]
        runs = sum(each.file == file for each in self.slices)
        return f"  {'flaky' if times < runs else 'fails'}: {test} failed in {times} of {runs} runs"


def run(mark: str, runs: int, state: Path, revision: str, pytest: Pytest) -> Tally:
    """Run what is left of `runs` runs of every test file with `mark`, keeping the tally in `state`."""
    tally = _resumed(state, mark, runs, revision) or Tally(mark, runs, revision, _files(mark, pytest))
    for number, file in tally.left:
        tally.slices.append(_slice(number, file, mark, pytest))
        _keep(tally, state)
        print(f"run {number}, {file}: {', '.join(tally.slices[-1].failed) or 'green'}", flush=True)
    return tally


def _files(mark: str, pytest: Pytest) -> list[str]:
    status, output = pytest(["--collect-only", "-q", "-m", mark])
    if status:
        raise SystemExit(f"pytest cannot collect {mark}:\n{output[-KEPT_CHARS:]}")
    return list(dict.fromkeys(line.partition("::")[0] for line in output.splitlines() if "::" in line))


def _slice(number: int, file: str, mark: str, pytest: Pytest) -> Slice:
    began = time.monotonic()
    status, output = pytest([file, "-q", "-m", mark])
    failed = [_test(line) for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if status not in (0, NOTHING_SELECTED) and not failed:
        failed = [f"{file}::(pytest ended with {status})"]
    return Slice(number, file, failed, time.monotonic() - began, output[-KEPT_CHARS:] if failed else "")


def _test(line: str) -> str:
    return line.partition(" ")[2].partition(" - ")[0].strip()


def _resumed(state: Path, mark: str, runs: int, revision: str) -> Tally | None:
    if not state.exists():
        return None
    kept = json.loads(state.read_text())
    tally = Tally(**{**kept, "slices": [Slice(**each) for each in kept["slices"]]})
    same = (tally.mark, tally.runs, tally.revision) == (mark, runs, revision)
    return tally if same and tally.left else None


def _keep(tally: Tally, state: Path) -> None:
    """Whole or not at all: whoever is killed while writing loses one slice."""
    state.parent.mkdir(exist_ok=True)
    unfinished = state.with_suffix(".new")
    unfinished.write_text(json.dumps(asdict(tally), indent=1, ensure_ascii=False))
    unfinished.replace(state)


def _pytest(arguments: Sequence[str]) -> tuple[int, str]:
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,  # told to end by us alone, once, with all its processes
    )
    with running:
        try:
            output, _ = running.communicate()
        except KeyboardInterrupt:
            _end(running)
            raise
    return running.returncode, output


def _end(running: subprocess.Popen[str]) -> None:
    """Interrupt it, give it time to take down what it has started, then kill what is left."""
    os.killpg(running.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        running.communicate(timeout=TIDY_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)


def _revision() -> str:
    """The commit, and what has been changed since; without git every tree is the same."""
    told = [run_git("rev-parse", "HEAD"), run_git("diff", "HEAD", "--stat")]
    return "\n".join(part.strip() for part in told if part)


def main() -> int:
    """Run, print the tally; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.dev.flake_hunt", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--mark", default="saga", help="which suites, as pytest's -m has it")
    options = parser.parse_args()
    interrupt_once()
    try:
        tally = run(options.mark, options.runs, STATE, _revision(), _pytest)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here")
        return 130
    print("\n".join(tally.lines()))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
