"""Lists what `make setup` has installed."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

from harness.runtime import compose, packages, variables
from harness.runtime.postgres import find_binaries

VERSION = re.compile(r"\d+(\.\d+)+")


def list_installed(compose_file: Path) -> dict[str, str]:
    """Return each program that the native stack needs, with its version and place. RabbitMQ may be missing."""
    server = find_binaries(_find_postgres_image(compose_file)) / "postgres"
    printed = subprocess.run([str(server), "--version"], capture_output=True, text=True, check=False).stdout
    broker = packages.find_broker()
    return {
        "Python": f"{platform.python_version()}  {sys.prefix}",
        "PostgreSQL": f"{_find_version(printed)}  {server}",
        "RabbitMQ": f"{_find_version(str(broker.resolve()))}  {broker}" if broker else "not installed",
    }


def _find_postgres_image(compose_file: Path) -> str:
    values = variables.resolve({}, {}, compose.variables_of(compose_file))
    services = compose.load(compose_file, values).values()
    return next(service.image for service in services if service.kind == "postgres")


def _find_version(text: str) -> str:
    found = VERSION.search(text)
    return found[0] if found else "unknown version"
