"""Runs the Postman collection with newman."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from harness import Stack
from tests.support import node_packages

FOLDER = node_packages.FOLDER
COLLECTION = FOLDER / "TicketRemaster.postman_collection.json"
ENVIRONMENT = FOLDER / "TicketRemaster.postman_environment.json"
NEWMAN = node_packages.PACKAGES / "newman" / "bin" / "newman.js"
SECONDS = 120


def newman() -> list[str]:
    """Return the command of newman, which is installed on first use."""
    return [node_packages.install(), "--no-deprecation", str(NEWMAN)]


def run(command: list[str], stack: Stack, report: Path, *more: str) -> dict[str, Any]:
    """Run the collection and return newman's JSON report with its `exit_code` (1 if an assertion failed)."""
    addresses = {"gateway_url": "api-gateway", "smu_url": "fake-smu", "stripe_url": "fake-stripe"}
    given = [part for name, who in addresses.items() for part in ("--env-var", f"{name}={stack.url(who)}")]
    given += ["--env-var", f"staff_password={stack.env('user-service')['STAFF_PASSWORD']}"]
    written = ["--reporters", "json", "--reporter-json-export", str(report)]
    arguments = ["run", str(COLLECTION), "--environment", str(ENVIRONMENT), *given, *written, *more]
    done = subprocess.run([*command, *arguments], check=False, timeout=SECONDS, capture_output=True, text=True)
    assert report.exists(), done.stdout + done.stderr
    return {**json.loads(report.read_text()), "exit_code": done.returncode}
