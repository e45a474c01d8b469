"""Compare the files for other teams, a Postman collection and a Swagger file for OutSystems, with the public spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from harness.dev.spec_bundle import Document, operations, resolve
from harness.runtime.compose import ROOT

POSTMAN = ROOT / "specs" / "postman" / "TicketRemaster.postman_collection.json"
OUTSYSTEMS = ROOT / "specs" / "outsystems" / "verification-api-swagger.json"
FOLDERS = ["Auth", "Purchase", "Transfer", "Verification", "Account"]
ASSERTED = re.compile(r"pm\.test\('(\d{3})(?: ([A-Z_]+))?'")


def read(path: Any) -> Document:
    """Read a JSON file."""
    return dict(json.loads(path.read_text()))


def check_postman(collection: Document, public: Document) -> Iterator[str]:
    """Yield each request without an operation, with an unknown body, or with an undocumented assertion."""
    if [folder["name"] for folder in collection["item"]] != FOLDERS:
        yield f"the folders are not {', '.join(FOLDERS)}"
    for folder in collection["item"]:
        for item in folder["item"]:
            if item["request"]["url"]["host"] == ["{{gateway_url}}"]:
                yield from (f"{item['name']}: {problem}" for problem in _check_request(item, public))


def _check_request(item: Document, public: Document) -> Iterator[str]:
    request = item["request"]
    path = "/" + "/".join(request["url"]["path"])
    found = _find_operation(public, request["method"], path)
    if found is None:
        yield f"{request['method']} {path} is not an operation of the public spec"
        return
    yield from _check_body(public, found, request)
    script = "\n".join(line for event in item["event"] if event["listen"] == "test" for line in event["script"]["exec"])
    asserted = ASSERTED.findall(script)
    if not asserted:
        yield "does not assert a status"
    for status, code in asserted:
        answer = resolve(public, found["responses"].get(status))
        if answer is None:
            yield f"{status} is not documented"
        elif code and code not in _list_codes(answer):
            yield f"{code} is not documented for {status}"


def _find_operation(public: Document, method: str, path: str) -> Document | None:
    for known, template, operation in operations(public):
        if known == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return operation
    return None


def _list_codes(answer: Document) -> list[str]:
    schema = answer["content"]["application/json"]["schema"]
    return list(schema.get("properties", {}).get("error_code", {}).get("enum", []))


def _check_body(public: Document, operation: Document, request: Document) -> Iterator[str]:
    takes = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if takes is None or "body" not in request:
        return
    schema, sent = resolve(public, takes["schema"]), json.loads(request["body"]["raw"])
    variants = schema.get("oneOf", [schema])
    if not any(sent.keys() <= v["properties"].keys() and set(v.get("required", [])) <= sent.keys() for v in variants):
        yield f"sends {sorted(sent)}, but the spec does not have all these fields"


def check_outsystems(swagger: Document, public: Document) -> Iterator[str]:
    """Yield each call, field, enum or status in which the two files differ."""
    for path, item in swagger["paths"].items():
        for method, operation in item.items():
            known = public["paths"].get(path, {}).get(method)
            if known is None:
                yield f"{method} {path} is not an operation of the public spec"
                continue
            if operation["responses"].keys() != known["responses"].keys():
                yield f"{path}: statuses {sorted(operation['responses'])} and {sorted(known['responses'])}"
            yield from (f"{path}: {problem}" for problem in _compare_bodies(swagger, operation, public, known))
            yield from (f"{path}: {problem}" for problem in _check_texts(operation, public, known))


def _check_texts(operation: Document, public: Document, known: Document) -> Iterator[str]:
    """Yield each text of an answer that names a code or a header that the operation does not have."""
    headers = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "header"}
    for status, answer in operation["responses"].items():
        text = answer["description"]
        documented = known["responses"].get(status)
        codes = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bUNAUTHORIZED\b|\bFORBIDDEN\b", text))
        if documented and status != "200" and not codes <= set(_list_codes(resolve(public, documented))):
            yield f"the text of {status} names {sorted(codes)}"
        if "Idempotency-Key" in text and "Idempotency-Key" not in headers:
            yield f"the text of {status} names a header that the call does not have"
        if re.search(r"\bscan", text) and operation["operationId"] != "Verify":
            yield f"the text of {status} is about a scan"


def _compare_bodies(swagger: Document, operation: Document, public: Document, known: Document) -> Iterator[str]:
    success = known["responses"]["200"]["content"]["application/json"]["schema"]
    yield from _compare(swagger, operation["responses"]["200"]["schema"], public, success, "answer")
    bodies = [parameter["schema"] for parameter in operation.get("parameters", []) if parameter["in"] == "body"]
    for body in bodies:
        yield from _compare(
            swagger, body, public, known["requestBody"]["content"]["application/json"]["schema"], "body"
        )


def _compare(swagger: Document, theirs: Document, public: Document, ours: Document, where: str) -> Iterator[str]:
    theirs, ours = resolve(swagger, theirs), resolve(public, ours)
    if set(theirs.get("required", [])) != set(ours.get("required", [])):
        yield f"{where}: required {theirs.get('required')} and {ours.get('required')}"
    if "enum" in theirs and theirs["enum"] != ours.get("enum"):
        yield f"{where}: {theirs['enum']} and {ours.get('enum')}"
    if "const" not in ours and "enum" not in ours and theirs["type"] != ours["type"]:
        yield f"{where}: {theirs['type']} and {ours['type']}"
    mine, yours = theirs.get("properties", {}), ours.get("properties", {})
    if mine.keys() != yours.keys():
        yield f"{where}: {sorted(mine)} and {sorted(yours)}"
    for name in mine.keys() & yours.keys():
        yield from _compare(swagger, mine[name], public, yours[name], f"{where}.{name}")
