"""Compare two descriptions of the same fact, such as a spec and the code. Each check yields the differences.

No service runs for these checks, because they only read files.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from harness.dev.spec_bundle import Document, bundle, find_dangling, load, operations, resolve
from harness.runtime.compose import ROOT
from services.contracts.errors import ERRORS
from tests.support import node_packages

SERVICES = ROOT / "services"
GATEWAY_ONLY = "GATEWAY_REJECTED"  # Kong returns it from its error template
EVERYWHERE = {"NOT_FOUND", "METHOD_NOT_ALLOWED"}  # for unknown paths and methods, so no operation documents them
SERVED_BY = {"user-service": "user", "event-service": "event", "orchestrator-service": "orchestrator"}
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")
VERBS = {"get", "post", "patch", "put", "delete"}


# ── the gateway


def load_kong_config() -> Document:
    """Read kong.yml with a value for every placeholder."""
    return dict(yaml.load(PLACEHOLDER.sub("1", (SERVICES / "gateway" / "kong.yml").read_text()), yaml.CSafeLoader))


def check_gateway(kong: Document, public: Document) -> Iterator[str]:
    """Yield each difference between the routes of kong.yml and the public spec: service, path and need of a token."""
    used = set()
    for method, path, operation in operations(public):
        service, route = _find_route(kong, re.sub(r"\{\w+\}", "x", path))
        if route is None:
            yield f"{method} {path}: kong.yml has no route"
            continue
        used.add(route["name"])
        if path not in bundle(SERVED_BY[service])["paths"]:
            yield f"{method} {path}: Kong routes it to {service}, but the spec of that service does not have it"
        if _needs_token(route) != bool(operation.get("security")):
            yield f"{method} {path}: the spec and route {route['name']} do not agree on whether a token is needed"
    unused = {route["name"] for _, route in _list_routes(kong)} - used
    yield from (f"route {name}: no operation of the spec uses it" for name in unused)


def _list_routes(kong: Document) -> Iterator[tuple[str, Document]]:
    """Yield each route with its service, but not the route of every other path, which returns 404."""
    for service in kong["services"]:
        yield from ((service["name"], route) for route in service["routes"] if route["paths"] != ["/"])


def _find_route(kong: Document, path: str) -> tuple[str, Document | None]:
    """Find the route as Kong does: regular expressions before prefixes, longer prefixes before shorter."""
    found = []
    for service, route in _list_routes(kong):
        for rule in route["paths"]:
            is_regex = rule.startswith("~")
            if re.fullmatch(rule[1:], path) if is_regex else path.startswith(rule):
                found.append((is_regex, len(rule), service, route))
    return max(found, key=lambda one: one[:2])[2:] if found else ("", None)


def _needs_token(route: Document) -> bool:
    return any(plugin["name"] == "jwt" for plugin in route.get("plugins", []))


def check_routes(server: str, document: Document) -> Iterator[str]:
    """Yield each route that only the code or only the spec of a service has."""
    files = [*(SERVICES / server).rglob("*.py")]
    if "effect_routes(" in (SERVICES / server / "app.py").read_text():
        files.append(SERVICES / "chassis" / "effect_routes.py")
    written = set(_find_routes(files)) | {("GET", path) for path in ("/health", "/health/live", "/metrics")}
    specified = {(method, path) for method, path, _ in operations(document)}
    written -= {("GET", "/docs/{name}")}  # the files of the documentation page
    yield from (f"{server}: {' '.join(one)} is in the code only" for one in written - specified)
    yield from (f"{server}: {' '.join(one)} is in the spec only" for one in specified - written)


def _find_routes(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        tree = ast.parse(file.read_text())
        prefix = "".join(_get_keyword(call, "url_prefix") for call in _find_calls(tree, "Blueprint"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                for call in (d for d in node.decorator_list if isinstance(d, ast.Call)):
                    if isinstance(call.func, ast.Attribute) and call.func.attr in VERBS and call.args:
                        rule = ast.literal_eval(call.args[0])
                        yield call.func.attr.upper(), prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def _find_calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _get_keyword(call: ast.Call, name: str) -> str:
    return next((str(ast.literal_eval(keyword.value)) for keyword in call.keywords if keyword.arg == name), "")


# ── the error table


def check_error_codes(responses: Mapping[str, Document], documents: Mapping[str, Document]) -> Iterator[str]:
    """Yield each error code on which the error table, the specs and the services differ, with its status."""
    table: dict[str, int] = {code.value: meaning.http for code, meaning in ERRORS.items()}
    for status, code in _find_specified_codes(documents):
        if code != GATEWAY_ONLY and table.get(code) != status:
            yield f"{code} is {table.get(code)} in the table and {status} in a spec"
    specified = {code for _, code in _find_specified_codes(documents)}
    in_info = {code for code in EVERYWHERE if code in documents["gateway"]["info"]["description"]}
    yield from (f"{code} is in the table and in no spec" for code in table.keys() - specified - in_info)
    yield from (f"{code} is not raised by any service" for code in table.keys() - _find_raised_codes())
    for name, response in responses.items():
        if response["content"]["application/json"]["example"]["error_code"] not in _list_codes(response):
            yield f"{name}: its example has another code"


def _find_specified_codes(documents: Mapping[str, Document]) -> Iterator[tuple[int, str]]:
    for document in documents.values():
        for _, _, operation in operations(document):
            for status, answer in operation["responses"].items():
                yield from ((int(status), code) for code in _list_codes(resolve(document, answer)))


def _list_codes(response: Document) -> list[str]:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return list(schema.get("properties", {}).get("error_code", {}).get("enum", []))


def _find_raised_codes() -> set[str]:
    named = re.compile(r"(?:ErrorCode|_C)\.([A-Z_]+)")
    sources = (file for file in SERVICES.rglob("*.py") if file.name != "errors.py" or file.parent.name != "contracts")
    return {code for file in sources for code in named.findall(file.read_text())}


# ── messages


def check_queues(spec: Document, definitions: Document) -> Iterator[str]:
    """Yield each exchange, queue, argument or binding on which queues.yaml and definitions.json differ."""
    channels = [(channel, channel["bindings"]["amqp"]) for channel in spec["channels"].values()]
    written = {queue["name"]: queue["arguments"] for queue in definitions["queues"]}
    yield from _check_durability(channels, definitions)
    waiting = [(channel, amqp) for channel, amqp in channels if amqp["is"] == "queue"]
    specified = {amqp["queue"]["name"]: channel.get("x-arguments") for channel, amqp in waiting}
    if written != specified:
        yield f"queues: {written} and {specified}"
    bound = {(b["source"], b["routing_key"], b["destination"]) for b in definitions["bindings"]}
    specified_bindings = {
        (amqp["exchange"]["name"], channel["address"], channel["x-bound-to"])
        for channel, amqp in channels
        if amqp["is"] == "routingKey"
    }
    if bound != specified_bindings:
        yield f"bindings: {bound} and {specified_bindings}"
    kinds = {(e["name"], e["type"]) for e in definitions["exchanges"]}
    exchanges = {(a["exchange"]["name"], a["exchange"]["type"]) for _, a in channels if a["is"] == "routingKey"}
    if kinds != exchanges:
        yield f"exchanges: {kinds} and {exchanges}"


def _check_durability(channels: list[tuple[Document, Document]], definitions: Document) -> Iterator[str]:
    """Compare vhost, durability and automatic deletion."""
    kept = ("vhost", "durable", "auto_delete")
    things = {**{q["name"]: q for q in definitions["queues"]}, **{e["name"]: e for e in definitions["exchanges"]}}
    for _, amqp in channels:
        specified = amqp.get("queue") or amqp["exchange"]
        defined = things.get(specified["name"], {})
        if [defined.get(name) for name in kept] != [specified["vhost"], specified["durable"], specified["autoDelete"]]:
            yield f"{specified['name']}: vhost, durable or autoDelete are not those of definitions.json"


def check_asyncapi(spec: Document) -> Iterator[str]:
    """Yield each violation of the AsyncAPI schema, and each reference without a target."""
    node_packages.install()
    schema = json.loads((node_packages.PACKAGES / "@asyncapi" / "specs" / "schemas" / "3.0.0.json").read_text())
    for error in jsonschema_rs.Draft7Validator(schema).iter_errors(spec):
        yield f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"
    yield from find_dangling(spec)


def load_definitions() -> Document:
    """Read the topology that RabbitMQ imports."""
    return dict(json.loads((SERVICES / "rabbitmq" / "definitions.json").read_text()))


def load_message_schema(spec: Document) -> Document:
    """Return the schema of the hold message, which is the only kind of message."""
    return dict(resolve(spec, spec["components"]["messages"]["hold"]["payload"]))


def load_specs() -> dict[str, Document]:
    """Bundle the spec of the gateway and of each service."""
    return {name: bundle(name) for name in ("gateway", "orchestrator", "user", "order", "event", "inventory")}


def load_error_responses() -> dict[str, Any]:
    """Read the shared error responses of the specs."""
    return dict(load("errors")["components"]["responses"])
