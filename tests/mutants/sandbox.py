"""The sandbox of the mutants: copies of the project, each with a database server and a warm pytest.

The project itself never changes. A run puts the mutant into the copy of a workspace, and starts pytest in a new process
with empty databases. A mutant is caught only if a test fails in its call phase. A failed import or fixture proves
nothing.
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
class Run:
    """The result of some tests. `failed` has those that failed in their call phase, each with its reason.

    If `problem` is not empty, the result proves nothing.
    """

    failed: dict[str, str]
    passed: tuple[str, ...]
    problem: str
    seconds: float
    log: str = field(repr=False, default="")


class Workspace:
    """A copy of the project with its own warm pytest and database server, for one run at a time."""

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
        """Stop the worker and its database server."""
        self._worker.communicate()
        self._databases.close()

    def copy_tree(self, clean: Path) -> Path:
        """Return the project of this workspace. The first call copies it, including bytecode."""
        if not self.tree.exists():
            shutil.copytree(clean, self.tree, symlinks=True)
        return self.tree

    def run(
        self, tree: Path, arguments: Sequence[str], seconds: float, *, fail_fast: bool = False, seed: int = 0
    ) -> Run:
        """Run pytest in the project at `tree` for at most `seconds`.

        `fail_fast` stops at the first failure. It also writes no bytecode, because the next mutant can have the same
        file size and modification time. A `seed` other than 0 shuffles the tests.
        """
        log, report = (self._home / f"{next(self._numbers)}.{kind}" for kind in ("log", "json"))
        job = {"tree": str(tree), "arguments": arguments, "seconds": seconds, "fail_fast": fail_fast, "seed": seed}
        job |= {"log": str(log), "report": str(report)}
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        print(json.dumps(job), file=self._worker.stdin, flush=True)
        record = json.loads(self._worker.stdout.readline())
        self._databases.empty()
        return _parse(record, log)


def _parse(record: dict[str, Any], log: Path) -> Run:
    text = log.read_text(errors="replace") if log.exists() else ""
    calls = [(node, outcome, reason) for node, when, outcome, reason in record.get("reports", []) if when == "call"]
    failed = {node: reason for node, outcome, reason in calls if outcome == "failed"}
    passed = tuple(node for node, outcome, _ in calls if outcome == "passed")
    return Run(failed, passed, _find_problem(record), record["seconds"], text)


def _find_problem(record: dict[str, Any]) -> str:
    """Return the reason why a run proves nothing, or an empty string."""
    if record["timed_out"]:
        return f"still running after {record['seconds']:.0f} s"
    if record.get("not_collected"):
        return "not collected: " + "; ".join(record["not_collected"])
    if record.get("exit") not in (0, 1):
        return f"pytest ended with {record.get('exit', 'nothing at all')}"
    setups = [f"{node}: {reason}" for node, when, _, reason in record["reports"] if when == "setup"]
    return "not set up: " + "; ".join(setups) if setups else ""


class Sandbox:
    """Workspaces, and a clean copy of the project from which each workspace makes its own."""

    def __init__(self, home: Path, workspaces: Iterable[Workspace]) -> None:
        self.clean = home / "clean"
        self._free: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
        self.size = 0
        for workspace in workspaces:
            self._free.put(workspace)
            self.size += 1

    def run_clean(self, arguments: Sequence[str], seconds: float, seed: int = 0) -> Run:
        """Run tests without a mutant, in the order of the seed."""
        with self._take_workspace() as workspace:
            return workspace.run(self.clean, arguments, seconds, seed=seed)

    def run_mutant(self, mutant: Mutant, arguments: Sequence[str], seconds: float) -> Run:
        """Run tests with a mutant. Raises Stale."""
        with self._take_workspace() as workspace, mutant.apply(workspace.copy_tree(self.clean)):
            return workspace.run(workspace.tree, arguments, seconds, fail_fast=True)

    @contextmanager
    def _take_workspace(self) -> Iterator[Workspace]:
        workspace = self._free.get()
        try:
            yield workspace
        finally:
            self._free.put(workspace)


@contextmanager
def open_sandbox() -> Iterator[Sandbox]:
    """Create a sandbox with workspaces, and delete it when the block ends.

    A test that a mutant breaks mostly waits for its deadline. So each core has two workspaces, at most four in all.
    """
    with tempfile.TemporaryDirectory(prefix="ticketremaster-mutants-") as scratch, ExitStack() as stack:
        home, size = Path(scratch), min(2 * len(os.sched_getaffinity(0)), 4)
        with ThreadPoolExecutor(size) as pool:
            workspaces = list(pool.map(Workspace, [home / f"workspace-{number}" for number in range(size)]))
        for workspace in workspaces:
            stack.enter_context(closing(workspace))
        _copy_project(home / "clean")
        yield Sandbox(home, workspaces)


def _copy_project(tree: Path) -> None:
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (tree / ".venv").symlink_to(ROOT / ".venv")
