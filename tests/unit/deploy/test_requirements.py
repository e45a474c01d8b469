"""Every package that the code imports is a requirement of its own, so no other package can take it away."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

FOLDERS = {"requirements.in": ("services", "fakes", "clients"), "requirements-dev.in": ("harness", "tests")}
OURS = {"services", "fakes", "clients", "harness", "tests"}
GENERATED = "pb"
GOOGLE = {"protobuf": "protobuf", "rpc": "googleapis-common-protos"}  # `google` is a namespace of several packages


def read_requirements(name: str) -> set[str]:
    """The packages of a requirements file and of those that it includes."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in lines if line and not line.startswith("-")}
    return found.union(*(read_requirements(line.split()[1]) for line in lines if line.startswith("-r")))


def find_imports(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each imported module with the file that imports it."""
    for path in folder.rglob("*.py"):
        if GENERATED in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            yield from ((name, path) for name in names)


def find_packages(module: str, installed: dict[str, list[str]]) -> set[str]:
    top, _, rest = module.partition(".")
    if top == "google":
        return {GOOGLE[rest.partition(".")[0]]}
    found = installed.get(top, [top])  # a package that is not installed here usually has the name of its module
    return {name.lower().replace("_", "-") for name in found}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_import_is_a_requirement(name: str) -> None:
    wanted, installed = read_requirements(name), dict(metadata.packages_distributions())
    missing = {
        f"{path.relative_to(ROOT)} imports {module}"
        for folder in FOLDERS[name]
        for module, path in find_imports(ROOT / folder)
        if module.partition(".")[0] not in sys.stdlib_module_names | OURS
        and not find_packages(module, installed) & wanted
    }
    assert missing == set()
