"""`python -m harness.dev.api_reference`: API.md from the specs. The contract suite fails when it is out of date."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.dev.spec_bundle import Document, bundle, load, operations, resolve
from harness.runtime.compose import ROOT

TARGET = ROOT / "API.md"
INTERNAL = ("user", "order", "event", "inventory")
OUTSIDE = ("smu", "stripe")
HEAD = """# The API

Generated from `specs/` by `python -m harness.dev.api_reference`; do not edit. To try it out: `/docs` at the gateway.
"""


def rendered() -> str:
    """The whole page."""
    lines = [HEAD, *_public(), "## Between services\n", *_internal(), *_queues(), "## Outside\n"]
    for name in OUTSIDE:
        lines += _table(name)
    return "\n".join(lines).rstrip() + "\n"


def _public() -> Iterator[str]:
    document = bundle("gateway")
    yield f"{document['info']['description']}\n"
    for tag in (tag["name"] for tag in document["tags"]):
        yield f"## {tag}\n"
        for method, path, operation in operations(document):
            if tag in operation["tags"]:
                yield from _operation(document, method, path, operation)


def _operation(document: Document, method: str, path: str, operation: Document) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    who = "" if operation.get("security") else "No token is needed."
    said = [f"{operation['summary']}.", operation.get("description", ""), who]
    yield " ".join(part for part in said if part) + "\n"
    if parameters := [resolve(document, parameter) for parameter in operation.get("parameters", [])]:
        yield from (f"- `{p['name']}` ({p['in']}): {_kind(document, p['schema'])}" for p in parameters)
        yield ""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        yield f"```json\n{_example(media)}\n```\n"
    yield from _answers(document, operation)


def _answers(document: Document, operation: Document) -> Iterator[str]:
    yield "| status | answer |\n|---|---|"
    shown = ""
    for status, answer in operation["responses"].items():
        response = resolve(document, answer)
        yield f"| {status} | {response['description']} |"
        media = response.get("content", {}).get("application/json")
        if status.startswith("2") and media:
            shown = f"\n```json\n{_example(media)}\n```"
    yield f"{shown}\n"


def _example(media: Document) -> str:
    if "examples" in media:
        return "\n".join(_compact(example["value"]) for example in media["examples"].values())
    return _compact(media.get("example"))


def _compact(value: Any) -> str:
    if isinstance(value, dict) and value.keys() >= {"success", "data"}:
        beside = {key: _short(part) for key, part in value.items() if key not in ("success", "data")}
        rest = "".join(f',\n "{key}": {part}' for key, part in beside.items())
        return f'{{"success": true,\n "data": {_short(value["data"])}{rest}}}'
    return _short(value)


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _kind(document: Document, schema: Document) -> str:
    found = resolve(document, schema)
    limits = [f"{name} {found[name]}" for name in ("default", "minimum", "maximum", "maxLength") if name in found]
    what = found.get("format") or found.get("type") or " · ".join(map(str, found.get("enum", [])))
    return ", ".join([str(what), *limits])


def _internal() -> Iterator[str]:
    for name in INTERNAL:
        yield from _table(name)
    yield "### Inventory service (gRPC)\n\n`proto/inventory.proto` is the contract, with every call explained.\n"


def _table(name: str) -> list[str]:
    document = bundle(name)
    public = bundle("gateway")["paths"] if name in INTERNAL else {}
    rows = [
        f"| `{method} {path}` | {operation['summary']} | {' '.join(operation['responses'])} |"
        for method, path, operation in operations(document)
        if path not in public
    ]
    info, url = document["info"], document["servers"][0]["url"]
    head = [f"### {info['title']}\n", f"{info['description']} `specs/{name}.yaml`, at `{url}`.\n"]
    return [*head, "| call | | answers |\n|---|---|---|", *rows, ""]


def _queues() -> Iterator[str]:
    document = load("queues")
    yield f"### Queues\n\n{document['info']['description']} `specs/queues.yaml`.\n"
    yield "| operation | where | |\n|---|---|---|"
    for name, operation in document["operations"].items():
        channel = document["channels"][operation["channel"]["$ref"].rpartition("/")[2]]
        yield f"| {operation['action']} `{name}` | `{channel['address']}` | {operation['summary']} |"
    yield ""


if __name__ == "__main__":
    TARGET.write_text(rendered())
