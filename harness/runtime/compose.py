"""Read compose.yaml, the only description of the processes, as far as the harness needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import StackError

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?:(?P<op>:?[-?])(?P<text>[^}]*))?\})")
PROBE = re.compile(r"http://localhost:(?P<port>\d+)(?P<path>/[\w/.-]*)")
INITDB = "/docker-entrypoint-initdb.d/"


@dataclass(frozen=True)
class Service:
    """One service of compose.yaml. `ports` are the container's ports, the main one first.

    `image` is empty if the image is built from this repository. A second process of a service has `replica_of`.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    ports: tuple[int, ...]
    probe: tuple[int, str] | None
    depends_on: tuple[str, ...]
    initdb: tuple[Path, ...]
    replica_of: str = ""

    @property
    def kind(self) -> str:
        """The image's bare name (`postgres`, `rabbitmq`, `kong`), or `python` for an image of this repository."""
        return self.image.split(":")[0].rsplit("/", 1)[-1] or "python"


def load(path: Path, variables: Mapping[str, str]) -> dict[str, Service]:
    """Read the services at `path`, without those of a profile, and insert `variables`.

    Raises StackError for a variable without a value.
    """
    document = yaml.load(path.read_text(), yaml.CSafeLoader)
    services = {name: raw for name, raw in document["services"].items() if not raw.get("profiles")}
    return {name: _service(name, raw, variables, path.parent) for name, raw in services.items()}


def variables_of(path: Path) -> frozenset[str]:
    """Return the names of all variables in the file at `path`."""
    text = json.dumps(yaml.load(path.read_text(), yaml.CSafeLoader))  # without the comments
    return frozenset(found["name"] for found in VARIABLE.finditer(text) if found["name"])


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Insert `variables` into `text` by the rules of Compose: `${A}`, `${A:-default}`, `${A:?message}`, `$$`.

    Raises StackError for a required variable without a value.
    """

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        name, op, default = found["name"], found["op"] or "", found["text"] or ""
        given = variables.get(name)
        if given is not None and (given or not op.startswith(":")):
            return given
        if op.endswith("?"):
            raise StackError(f"compose.yaml requires the variable {name}: {default}")
        return default

    return VARIABLE.sub(value, text)


def _service(name: str, raw: dict[str, Any], variables: Mapping[str, str], base: Path) -> Service:
    environment = {k: interpolate(str(v), variables) for k, v in raw.get("environment", {}).items()}
    published = [str(port).rsplit(":", 1)[-1] for port in raw.get("ports", [])]
    return Service(
        name=name,
        image="" if "build" in raw else raw["image"],
        command=tuple(raw.get("command", ())),
        environment=environment,
        ports=tuple(int(port) for port in [*published, *raw.get("expose", [])]),
        probe=_probe(raw),
        depends_on=tuple(raw.get("depends_on", ())),
        initdb=_initdb(raw, base),
    )


def _probe(raw: dict[str, Any]) -> tuple[int, str] | None:
    found = PROBE.search(" ".join(raw.get("healthcheck", {}).get("test", [])))
    return (int(found["port"]), found["path"]) if found else None


def _initdb(raw: dict[str, Any], base: Path) -> tuple[Path, ...]:
    """Return the SQL files that the image runs on its first start, in that order."""
    mounts = (volume.split(":") for volume in raw.get("volumes", ()))
    scripts = sorted((target, source) for source, target, *_ in mounts if target.startswith(INITDB))
    return tuple(base / source for _, source in scripts)
