"""`python -m harness.dev.spec_bundle NAME` writes a whole spec into one file."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from harness.dev import spec_bundle
from harness.dev.spec_bundle import FOLDER, METHODS, SERVED

pytestmark = pytest.mark.unit


@functools.cache
def read(file: Path) -> Any:
    return yaml.load(file.read_text(), yaml.CSafeLoader)


def follow(folder: Path, reference: str) -> Any:
    target, _, pointer = reference.partition("#/")
    node = read(folder / target)
    for part in unquote(pointer).split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def find_operations(file: Path) -> dict[tuple[str, str], str]:
    """The operationId of each operation in a file. It follows the references of paths on its own."""
    found: dict[tuple[str, str], str] = {}
    for path, written in read(file)["paths"].items():
        item = follow(file.parent, written["$ref"]) if "$ref" in written else written
        found |= {(path, method): item[method]["operationId"] for method in METHODS if method in item}
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from references(part)


@pytest.mark.parametrize("name", SERVED)
def test_bundle_loses_no_operation(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec_bundle.main([name])
    document = json.loads(capsys.readouterr().out)
    operations = find_operations(FOLDER / f"{name}.yaml")
    assert operations
    assert {
        (path, method): item[method]["operationId"]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    } == operations
    assert {reference[:2] for reference in references(document)} <= {"#/"}, "a generator finds every part in the file"


def test_every_spec_with_paths_can_be_bundled() -> None:
    with_paths = {file.stem for file in FOLDER.glob("*.yaml") if read(file).get("paths")}
    assert with_paths == set(SERVED)


def test_unknown_spec_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        spec_bundle.main(["nothing"])
    assert "gateway" in capsys.readouterr().err
