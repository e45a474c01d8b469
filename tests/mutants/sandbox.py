"""Where mutants are tried: scratch copies of the project, a database server and a warm pytest for each core.

The tree itself is never touched. A trial plants the mutant in a bench's copy and runs tests in a process of its own
with empty databases; what counts is that a test *failed*: one that could not be collected or set up says nothing.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.mutants.mutant import Mutant
from tests.support.databases import SHARED_POSTGRES, Databases

ROOT = Path(__file__).resolve().parents[2]
NOT_COPIED = (".venv", ".git", ".run", ".hypothesis", ".*_cache", "__pycache__", "node_modules", "reports")


@dataclass(frozen=True)
class Trial:
    """What some tests said. `failed` is those that failed in their call phase, each with its reason in one line."""

    failed: dict[str, str]
    passed: tuple[str, ...]
    trouble: str
    seconds: float
    log: str = field(repr=False, default="")


class Bench:
    """One warm pytest with a database server of its own; one trial at a time."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.tree = home / "tree"
        home.mkdir()
        self._databases = Databases()
        environment = {**os.environ, SHARED_POSTGRES: str(self._databases.home), "STACK": "native"}
        for name in ("PYTEST_CURRENT_TEST", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        self._numbers = count()
        self._worker = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the worker and its server."""
        self._worker.communicate()
        self._databases.close()

    def tree_like(self, clean: Path) -> Path:
        """This bench's own copy of the project, with the bytecode that is there already."""
        if not self.tree.exists():
            shutil.copytree(clean, self.tree, symlinks=True)
        return self.tree

    def run(
        self, tree: Path, arguments: Sequence[str], seconds: float, *, at_first: bool = False, seed: int = 0
    ) -> Trial:
        """Run pytest with these arguments in the project at `tree`, for at most `seconds`.

        `at_first` ends it with the first failure, and leaves no bytecode: what is planted next may have the same size
        and second. A `seed` other than 0 shuffles the tests.
        """
        log, report = (self._home / f"{next(self._numbers)}.{kind}" for kind in ("log", "json"))
        job = {"tree": str(tree), "arguments": arguments, "seconds": seconds, "at_first": at_first, "seed": seed}
        job |= {"log": str(log), "report": str(report)}
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        print(json.dumps(job), file=self._worker.stdin, flush=True)
        record = json.loads(self._worker.stdout.readline())
        self._databases.empty()
        return _trial(record, log)


def _trial(record: dict[str, Any], log: Path) -> Trial:
    text = log.read_text(errors="replace") if log.exists() else ""
    called = [(node, outcome, why) for node, when, outcome, why in record.get("reports", []) if when == "call"]
    failed = {node: why for node, outcome, why in called if outcome == "failed"}
    passed = tuple(node for node, outcome, _ in called if outcome == "passed")
    return Trial(failed, passed, _trouble(record), record["seconds"], text)


def _trouble(record: dict[str, Any]) -> str:
    """Why nothing that these tests said counts."""
    if record["timed_out"]:
        return f"still running after {record['seconds']:.0f} s"
    if record.get("not_collected"):
        return "not collected: " + "; ".join(record["not_collected"])
    if record.get("exit") not in (0, 1):
        return f"pytest ended with {record.get('exit', 'nothing at all')}"
    unset = [f"{node}: {why}" for node, when, _, why in record["reports"] if when == "setup"]
    return "not set up: " + "; ".join(unset) if unset else ""


class Laboratory:
    """Benches, and the clean copy of the project from which each bench's own is made."""

    def __init__(self, home: Path, benches: Iterable[Bench]) -> None:
        self.clean = home / "clean"
        self._free: queue.SimpleQueue[Bench] = queue.SimpleQueue()
        self.size = 0
        for bench in benches:
            self._free.put(bench)
            self.size += 1

    def run_clean(self, arguments: Sequence[str], seconds: float, seed: int = 0) -> Trial:
        """These tests, on the project as it is, in the order that `seed` gives them."""
        with self._bench() as bench:
            return bench.run(self.clean, arguments, seconds, seed=seed)

    def run_planted(self, mutant: Mutant, arguments: Sequence[str], seconds: float) -> Trial:
        """These tests, on a copy with the mutant in it. Raises Stale."""
        with self._bench() as bench, mutant.planted(bench.tree_like(self.clean)):
            return bench.run(bench.tree, arguments, seconds, at_first=True)

    @contextmanager
    def _bench(self) -> Iterator[Bench]:
        bench = self._free.get()
        try:
            yield bench
        finally:
            self._free.put(bench)


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """A laboratory with a bench a core, at most four; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="ticketremaster-mutants-") as scratch, ExitStack() as stack:
        home, size = Path(scratch), min(len(os.sched_getaffinity(0)), 4)
        with ThreadPoolExecutor(size) as pool:
            benches = list(pool.map(Bench, [home / f"bench-{number}" for number in range(size)]))
        for bench in benches:
            stack.enter_context(closing(bench))
        _copy(home / "clean")
        yield Laboratory(home, benches)


def _copy(tree: Path) -> None:
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (tree / ".venv").symlink_to(ROOT / ".venv")
