"""Another checkout of the repository, whose system runs next to that of this one.

Only its command line is used, because its modules can have other names: `python -m harness up`, `status` and `down`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from psycopg2.extensions import make_dsn

from harness.errors import StackError
from harness.runtime.compose import ROOT
from harness.runtime.ports import HOST
from harness.runtime.progress import print_line
from harness.runtime.run_directory import RunDir, default_path

LOCK = "requirements-dev.lock"


@dataclass(frozen=True)
class OtherSystem:
    """A running system, described by the `status` of its own harness."""

    run_dir: RunDir
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def names(self) -> Sequence[str]:
        """All programs that run."""
        return [name for name, row in self.rows.items() if row["state"] == "running"]

    def address(self, name: str, port: int) -> str:
        """Return the local `host:port` of a port in compose.yaml."""
        return f"{HOST}:{self.rows[name]['ports'][str(port)]}"

    def url(self, name: str) -> str:
        """Return the address of a program, with credentials."""
        return str(self.rows[name]["url"])

    def env(self, name: str) -> Mapping[str, str]:
        """Return the variables of the system, secrets included. They are the same for every program."""
        return self.run_dir.read_variables()

    def admin_dsn(self, database: str) -> str:
        """Return a superuser's DSN for `database`."""
        return make_dsn(self.url("postgres"), dbname=database)


@dataclass(frozen=True)
class Checkout:
    """A checkout with the interpreter that runs it."""

    path: Path
    python: str

    @contextmanager
    def start_system(self, run_dir: Path, variables: Mapping[str, str]) -> Iterator[OtherSystem]:
        """Start its system with empty databases in `run_dir`, and take it down at the end. Raises StackError."""
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        self._run_harness(run_dir, "down", "--volumes")
        try:
            self._run_harness(run_dir, "up", "--detach", *settings)
            rows = json.loads(self._run_harness(run_dir, "status", "--json"))["processes"]
            yield OtherSystem(RunDir(run_dir), {row["name"]: row for row in rows})
        finally:
            self._run_harness(run_dir, "down", "--volumes")

    def _run_harness(self, run_dir: Path, *arguments: str) -> str:
        return _run([self.python, "-m", "harness", "--run-dir", str(run_dir), *arguments], self.path)


@contextmanager
def check_out(reference: str) -> Iterator[Checkout]:
    """Check `reference` out until the block ends. Raises StackError.

    It gets a virtual environment of its own if it pins other packages. Both use the same interpreter.
    """
    home = default_path() / "against"
    with open_worktree(reference, home) as worktree:
        yield Checkout(worktree, _find_python(worktree, home))


@contextmanager
def open_worktree(reference: str, home: Path) -> Iterator[Path]:
    """Yield a worktree of `reference` in `home`, and remove it at the end. Raises StackError."""
    commit = _run(["git", "rev-parse", "--verify", f"{reference}^{{commit}}"], ROOT).strip()
    worktree = home / commit[:12]
    if worktree.exists():  # a run that was killed left it
        _run(["git", "worktree", "remove", "--force", str(worktree)], ROOT)
    _run(["git", "worktree", "prune"], ROOT)
    _run(["git", "worktree", "add", "--detach", str(worktree), commit], ROOT)
    try:
        yield worktree
    finally:
        _run(["git", "worktree", "remove", "--force", str(worktree)], ROOT)


def _find_python(worktree: Path, home: Path) -> str:
    """Return this interpreter, or that of a virtual environment with the packages that the worktree pins."""
    lock = (worktree / LOCK).read_bytes()
    if lock == (ROOT / LOCK).read_bytes():
        return sys.executable
    environment = home / f"venv-{sha256(lock).hexdigest()[:12]}"
    python, made_from = environment / "bin" / "python", environment / "made-from.lock"
    if not made_from.exists():
        print_line(f"installing the packages of {worktree.name}, which pins others (once, about two minutes)")
        shutil.rmtree(environment, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(environment)], ROOT)
        _run([str(python), "-m", "pip", "install", "--quiet", "-r", str(worktree / LOCK)], ROOT)
        made_from.write_bytes(lock)
    return str(python)


def _run(command: Sequence[str], where: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("TR_RUN_DIR", "PYTHONPATH")}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        problem = (done.stderr or done.stdout).strip() or "no output"
        raise StackError(f"`{' '.join(command)}` failed in {where}: {problem}")
    return done.stdout
