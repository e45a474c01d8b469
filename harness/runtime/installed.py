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
    """Return each program that stack and tests need, with its version and place. The last three may be missing."""
    server = find_binaries(_find_postgres_image(compose_file)) / "postgres"
    broker, etcd, browser = packages.find_broker(), packages.find_etcd(), packages.find_browser()
    return {
        "Python": f"{platform.python_version()}  {sys.prefix}",
        "PostgreSQL": f"{_print_version(server)}  {server}",
        "RabbitMQ": f"{_find_version(str(broker.resolve()))}  {broker}" if broker else "not installed",
        "etcd": f"{_print_version(etcd)}  {etcd}" if etcd else "not installed, so this machine runs no cluster",
        "Chromium": f"{_print_version(browser)}  {browser}" if browser else "not installed, so no browser test runs",
    }


def _find_postgres_image(compose_file: Path) -> str:
    values = variables.resolve({}, {}, compose.variables_of(compose_file))
    services = compose.load(compose_file, values).values()
    return next(service.image for service in services if service.kind == "postgres")


def _print_version(program: Path) -> str:
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    return _find_version(done.stdout)


def _find_version(text: str) -> str:
    found = VERSION.search(text)
    return found[0] if found else "unknown version"
