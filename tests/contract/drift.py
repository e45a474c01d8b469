"""Holds what is written twice against itself. Each function returns what does not agree; nothing runs for it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from harness.dev.spec_bundle import Document, bundle, find_dangling, load, operations, resolve
from harness.runtime.compose import ROOT
from services.contracts.errors import ERRORS

SERVICES = ROOT / "services"
GATEWAY_ONLY = "GATEWAY_REJECTED"  # Kong's own, by its error template
EVERYWHERE = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}  # of addresses and methods that no operation has
SERVED_BY = {"user-service": "user", "event-service": "event", "orchestrator-service": "orchestrator"}
AT_THE_GATEWAY = {"/health", "/docs"}  # public beside /api
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")
VERBS = {"get", "post", "patch", "put", "delete"}


# ── the gateway


def kong_config() -> Document:
    """kong.yml with something in every placeholder."""
    return dict(yaml.safe_load(PLACEHOLDER.sub("1", (SERVICES / "gateway" / "kong.yml").read_text())))


def gateway(kong: Document, public: Document) -> Iterator[str]:
    """kong.yml's routes ⇔ the public spec, both ways: who serves it, and whether a token is asked for."""
    used = set()
    for method, path, operation in operations(public):
        service, route = _route(kong, re.sub(r"\{\w+\}", "x", path))
        if route is None:
            yield f"{method} {path}: kong.yml has no route"
            continue
        used.add(route["name"])
        if path not in bundle(SERVED_BY[service])["paths"]:
            yield f"{method} {path}: Kong leads to {service}, whose spec does not have it"
        if _asks_for_token(route) != bool(operation.get("security")):
            yield f"{method} {path}: the spec and route {route['name']} do not agree on whether a token is needed"
    unused = {route["name"] for _, route in _routes(kong)} - used
    yield from (f"route {name}: nothing in the spec goes there" for name in unused)


def _routes(kong: Document) -> Iterator[tuple[str, Document]]:
    for service in kong["services"]:
        yield from ((service["name"], route) for route in service["routes"])


def _route(kong: Document, path: str) -> tuple[str, Document | None]:
    """As Kong routes: regular expressions before prefixes, longer prefixes before shorter."""
    found = []
    for service, route in _routes(kong):
        for rule in route["paths"]:
            is_regex = rule.startswith("~")
            if re.fullmatch(rule[1:], path) if is_regex else path.startswith(rule):
                found.append((is_regex, len(rule), service, route))
    return max(found, key=lambda one: one[:2])[2:] if found else ("", None)


def _asks_for_token(route: Document) -> bool:
    return any(plugin["name"] == "jwt" for plugin in route.get("plugins", []))


def routes(server: str, document: Document) -> Iterator[str]:
    """The routes in a service's code ⇔ its spec, both ways."""
    written = set(_written(SERVICES / server)) | {("GET", path) for path in ("/health", "/health/live", "/metrics")}
    specified = {(method, path) for method, path, _ in operations(document)}
    written -= {("GET", "/docs/{name}")}  # the parts of the page
    yield from (f"{server}: {' '.join(one)} is in the code only" for one in written - specified)
    yield from (f"{server}: {' '.join(one)} is in the spec only" for one in specified - written)


def _written(folder: Path) -> Iterator[tuple[str, str]]:
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text())
        prefix = "".join(_keyword(call, "url_prefix") for call in _calls(tree, "Blueprint"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                for call in (d for d in node.decorator_list if isinstance(d, ast.Call)):
                    if isinstance(call.func, ast.Attribute) and call.func.attr in VERBS and call.args:
                        rule = ast.literal_eval(call.args[0])
                        yield call.func.attr.upper(), prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _keyword(call: ast.Call, name: str) -> str:
    return next((str(ast.literal_eval(keyword.value)) for keyword in call.keywords if keyword.arg == name), "")


# ── the error table


def error_codes(responses: Mapping[str, Document], documents: Mapping[str, Document]) -> Iterator[str]:
    """The error table ⇔ specs ⇔ what services name: every code, at its status."""
    table: dict[str, int] = {code.value: meaning.http for code, meaning in ERRORS.items()}
    for status, code in _specified(documents):
        if code != GATEWAY_ONLY and table.get(code) != status:
            yield f"{code} is {table.get(code)} in the table and {status} in a spec"
    specified = {code for _, code in _specified(documents)}
    in_info = {code for code in EVERYWHERE if code in documents["gateway"]["info"]["description"]}
    yield from (f"{code} is in the table and in no spec" for code in table.keys() - specified - in_info)
    yield from (f"{code} is raised by nobody" for code in table.keys() - _raised())
    for name, response in responses.items():
        if response["content"]["application/json"]["example"]["error_code"] not in _codes(response):
            yield f"{name}: its example has another code"


def _specified(documents: Mapping[str, Document]) -> Iterator[tuple[int, str]]:
    for document in documents.values():
        for _, _, operation in operations(document):
            for status, answer in operation["responses"].items():
                yield from ((int(status), code) for code in _codes(resolve(document, answer)))


def _codes(response: Document) -> list[str]:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return list(schema.get("properties", {}).get("error_code", {}).get("enum", []))


def _raised() -> set[str]:
    named = re.compile(r"(?:ErrorCode|_C)\.([A-Z_]+)")
    sources = (file for file in SERVICES.rglob("*.py") if file.name != "errors.py" or file.parent.name != "contracts")
    return {code for file in sources for code in named.findall(file.read_text())}


# ── messages


def queues(spec: Document, definitions: Document) -> Iterator[str]:
    """queues.yaml ⇔ definitions.json: exchanges, queues with their arguments, bindings."""
    channels = [(channel, channel["bindings"]["amqp"]) for channel in spec["channels"].values()]
    written = {queue["name"]: queue["arguments"] for queue in definitions["queues"]}
    yield from _durability(channels, definitions)
    waiting = [(channel, amqp) for channel, amqp in channels if amqp["is"] == "queue"]
    specified = {amqp["queue"]["name"]: channel.get("x-arguments") for channel, amqp in waiting}
    if written != specified:
        yield f"queues: {written} and {specified}"
    bound = {(b["source"], b["routing_key"], b["destination"]) for b in definitions["bindings"]}
    said = {
        (amqp["exchange"]["name"], channel["address"], channel["x-bound-to"])
        for channel, amqp in channels
        if amqp["is"] == "routingKey"
    }
    if bound != said:
        yield f"bindings: {bound} and {said}"
    kinds = {(e["name"], e["type"]) for e in definitions["exchanges"]}
    exchanges = {(a["exchange"]["name"], a["exchange"]["type"]) for _, a in channels if a["is"] == "routingKey"}
    if kinds != exchanges:
        yield f"exchanges: {kinds} and {exchanges}"


def _durability(channels: list[tuple[Document, Document]], definitions: Document) -> Iterator[str]:
    """Vhost, what survives a restart, and what goes with its last user."""
    kept = ("vhost", "durable", "auto_delete")
    things = {**{q["name"]: q for q in definitions["queues"]}, **{e["name"]: e for e in definitions["exchanges"]}}
    for _, amqp in channels:
        said = amqp.get("queue") or amqp["exchange"]
        there = things.get(said["name"], {})
        if [there.get(name) for name in kept] != [said["vhost"], said["durable"], said["autoDelete"]]:
            yield f"{said['name']}: vhost, durable or autoDelete are not those of definitions.json"


def asyncapi(spec: Document) -> Iterator[str]:
    """What AsyncAPI's own schema says against a document, and references that lead nowhere."""
    schema = json.loads((ROOT / "specs" / "vendor" / "asyncapi" / "3.0.0.json").read_text())
    for error in jsonschema_rs.Draft7Validator(schema).iter_errors(spec):
        yield f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"
    yield from find_dangling(spec)


def definitions() -> Document:
    """RabbitMQ's topology as it is imported."""
    return dict(json.loads((SERVICES / "rabbitmq" / "definitions.json").read_text()))


def hold_message(spec: Document) -> Document:
    """The schema of the one message that travels."""
    return dict(resolve(spec, spec["components"]["messages"]["hold"]["payload"]))


def whole() -> dict[str, Document]:
    """Every spec of a server."""
    return {name: bundle(name) for name in ("gateway", "orchestrator", "user", "order", "event", "inventory")}


def refusals() -> dict[str, Any]:
    """The answers that are not a success."""
    return dict(load("errors")["components"]["responses"])
