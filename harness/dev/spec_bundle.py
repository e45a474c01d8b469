"""Read the specs and insert the parts that they reference in other files.

`python -m harness.dev.spec_bundle gateway > gateway.json` writes one file for tools that cannot follow references, such
as code generators. `bundle("gateway")` returns the same document.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from harness.command_line import run_main
from harness.runtime.compose import ROOT

FOLDER = ROOT / "specs"
SHARED = ("components", "errors")  # referenced by the other files, without paths of their own
SERVED = ("gateway", "orchestrator", "user", "order", "event", "inventory", "smu", "stripe")
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

Document = dict[str, Any]


@cache
def _read(name: str, folder: Path) -> Document:
    return dict(yaml.load((folder / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader))


def load(name: str, folder: Path = FOLDER) -> Document:
    """Return a file without changes."""
    return copy.deepcopy(_read(name, folder))


def bundle(name: str, folder: Path = FOLDER) -> Document:
    """Return a document whose references are all internal. Raises LookupError for a broken reference."""
    document = load(name, folder)
    document["paths"] = {path: _inline(item, folder) for path, item in document["paths"].items()}
    parts: Document = {}
    for shared in (*SHARED, name):
        for kind, entries in _read(shared, folder).get("components", {}).items():
            parts.setdefault(kind, {}).update(copy.deepcopy(entries))
    parts.pop("pathItems", None)
    wanted = document.get("components", {}).get("securitySchemes", {})
    parts["securitySchemes"] = {scheme: _resolve_scheme(parts["securitySchemes"], scheme, folder) for scheme in wanted}
    document["components"] = parts
    localized: Document = _localize(document)
    _check_references(localized)
    _remove_broken_links(localized)
    return localized


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Document]]:
    """Yield each operation of a bundle as (METHOD, path, operation)."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def resolve(document: Mapping[str, Any], node: Any) -> Any:
    """Return the node, or the target of its reference in the bundle. Siblings of the reference override the target."""
    while isinstance(node, dict) and "$ref" in node:
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        node = {**_at(document, node["$ref"].removeprefix("#")), **siblings}
    return node


def _inline(item: Document, folder: Path) -> Document:
    if "$ref" not in item:
        return item
    file, _, pointer = item["$ref"].partition("#")
    return copy.deepcopy(_at(_read(file.removesuffix(".yaml"), folder), pointer))


def _resolve_scheme(schemes: Mapping[str, Any], name: str, folder: Path) -> Any:
    scheme = schemes[name]
    return _inline(scheme, folder) if "$ref" in scheme else scheme


def _at(document: Mapping[str, Any], pointer: str) -> Any:
    node: Any = document
    for part in pointer.lstrip("/").split("/"):
        node = node[unquote(part).replace("~1", "/").replace("~0", "~")]
    return node


def _localize(node: Any) -> Any:
    if isinstance(node, list):
        return [_localize(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: "#" + value.partition("#")[2] if key == "$ref" else _localize(value) for key, value in node.items()}


def find_dangling(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each broken reference in a document."""
    for pointer in _references(document):
        try:
            _at(document, pointer.removeprefix("#"))
        except (KeyError, TypeError):
            yield f"{document['info']['title']}: {pointer} does not exist"


def _check_references(document: Document) -> None:
    for problem in find_dangling(document):
        raise LookupError(problem)


def _remove_broken_links(document: Document) -> None:
    """Remove links to operations that are missing here. Paths shared with the gateway link to its operations."""
    known = {operation["operationId"] for _, _, operation in operations(document)}
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            links = response.get("links", {})
            response["links"] = {name: link for name, link in links.items() if link["operationId"] in known}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def main(arguments: list[str] | None = None) -> None:
    """Print the bundle of one spec as JSON."""
    parser = argparse.ArgumentParser(prog="python -m harness.dev.spec_bundle", description="Print a spec as one file.")
    parser.add_argument("name", choices=SERVED, help="a file of specs/, without its ending")
    print(json.dumps(bundle(parser.parse_args(arguments).name), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    run_main(main)
