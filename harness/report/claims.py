"""The claims of the reference and our departures from it, as data: `tests/claims/claims.toml`, `docs/departures.md`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runtime.compose import ROOT

CLAIMS = ROOT / "tests" / "claims" / "claims.toml"
DEPARTURES = ROOT / "docs" / "departures.md"
KEYS = ("title", "departs", "open")


@dataclass(frozen=True)
class Claim:
    """One claim: `departs` is a row of `docs/departures.md`, `open` says why nobody has built it yet."""

    id: str
    text: str
    departs: str = ""
    open: str = ""


@dataclass(frozen=True)
class Group:
    """Claims under one heading of the reference."""

    id: str
    title: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Departure:
    """What the reference says, what we build, and why."""

    id: str
    section: str
    reference: str
    here: str
    because: str


def groups(path: Path = CLAIMS) -> list[Group]:
    """Every claim, group by group, in the order of the file."""
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    return [_group(f"{section}.{name}", raw) for section, named in sections.items() for name, raw in named.items()]


def _group(name: str, raw: dict[str, Any]) -> Group:
    departs, unbuilt = raw.get("departs", {}), raw.get("open", {})
    claims = tuple(
        Claim(f"{name}.{number}", text, departs.get(number, ""), unbuilt.get(number, ""))
        for number, text in raw.items()
        if number not in KEYS
    )
    stray = (departs.keys() | unbuilt.keys()) - {claim.id.rpartition(".")[2] for claim in claims}
    if stray:
        raise ValueError(f"[{name}] says something of claims that it does not have: {', '.join(sorted(stray))}")
    return Group(name, raw["title"], claims)


def by_id(path: Path = CLAIMS) -> dict[str, Claim]:
    """Every claim by its id."""
    return {claim.id: claim for group in groups(path) for claim in group.claims}


def departures(path: Path = DEPARTURES) -> dict[str, Departure]:
    """The rows of the tables, by their number."""
    rows = (line.strip().strip("|").split(" | ") for line in path.read_text(encoding="utf-8").splitlines())
    found = [[cell.strip() for cell in row] for row in rows if row[0].strip().lstrip("D").isdigit()]
    return {row[0]: Departure(*row) for row in found}
