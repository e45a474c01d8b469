"""Each chassis module has at least two services as users, as CONTRIBUTING.md requires."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import services

pytestmark = pytest.mark.unit

ROOT = Path(services.__file__).parent
CHASSIS = {path.stem for path in ROOT.glob("chassis/*.py")} - {"__init__"}
PREFIX = "services.chassis"


def find_chassis_imports(path: Path) -> Iterator[str]:
    """The chassis modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == PREFIX:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PREFIX}."):
            yield str(node.module).removeprefix(f"{PREFIX}.")
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (name.removeprefix(f"{PREFIX}.") for name in names if name.startswith(f"{PREFIX}."))


def find_reachable(service: str) -> set[str]:
    """The chassis modules that a service imports, directly or through another chassis module."""
    waiting = {module for path in ROOT.glob(f"{service}/**/*.py") for module in find_chassis_imports(path)}
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= set(find_chassis_imports(ROOT / "chassis" / f"{module}.py")) - found
    return found


def test_each_chassis_module_has_two_services_as_users() -> None:
    reachable = {path.parent.name: find_reachable(path.parent.name) for path in ROOT.glob("*/main.py")}
    users = {module: {name for name, found in reachable.items() if module in found} for module in CHASSIS}
    assert len(reachable) == 5
    assert {module: found for module, found in users.items() if len(found) < 2} == {}
