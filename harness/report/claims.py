"""The claims of the reference and our departures from them, read from `claims.toml` and `docs/departures.md`."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runtime.compose import ROOT

CLAIMS = ROOT / "tests" / "claims" / "claims.toml"
DEPARTURES = ROOT / "docs" / "departures.md"
ID = re.compile(r"[a-z]+/[a-z0-9_.-]+")  # TOPIC/SLUG
KEYS = {"id", "text", "departs", "open"}


@dataclass(frozen=True)
class Claim:
    """One claim. `departs` is a row of `docs/departures.md`, and `open` is the reason why it is not built yet."""

    id: str
    section: str
    text: str
    departs: str = ""
    open: str = ""


@dataclass(frozen=True)
class Group:
    """Claims under one heading of a section of the reference."""

    section: str
    title: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Departure:
    """A row of `docs/departures.md`: the rule of the reference, our behaviour, and the reason."""

    id: str
    section: str
    reference: str
    here: str
    because: str


def read_groups(path: Path = CLAIMS) -> list[Group]:
    """Return every claim, by group in the order of the file.

    Raises `ValueError` for an unknown key, a malformed id, and an id that occurs twice.
    """
    found = [_parse_group(raw) for raw in tomllib.loads(path.read_text(encoding="utf-8"))["groups"]]
    ids = Counter(claim.id for group in found for claim in group.claims)
    if wrong := sorted(name for name, times in ids.items() if times > 1 or not ID.fullmatch(name)):
        raise ValueError(f"claim ids that occur twice or are not TOPIC/SLUG: {', '.join(wrong)}")
    return found


def _parse_group(raw: dict[str, Any]) -> Group:
    section = raw["section"]
    if unknown := {key for claim in raw["claims"] for key in claim} - KEYS:
        raise ValueError(f"unknown keys of claims under {raw['title']!r}: {', '.join(sorted(unknown))}")
    return Group(section, raw["title"], tuple(Claim(section=section, **claim) for claim in raw["claims"]))


def read_claims(path: Path = CLAIMS) -> dict[str, Claim]:
    """Return every claim by its id."""
    return {claim.id: claim for group in read_groups(path) for claim in group.claims}


def read_departures(path: Path = DEPARTURES) -> dict[str, Departure]:
    """Return the rows of the tables by their number. Raises `ValueError` for a number that occurs twice."""
    rows = (line.strip().strip("|").split(" | ") for line in path.read_text(encoding="utf-8").splitlines())
    found = [[cell.strip() for cell in row] for row in rows if row[0].strip().lstrip("D").isdigit()]
    if twice := sorted(number for number, times in Counter(row[0] for row in found).items() if times > 1):
        raise ValueError(f"departures that occur twice in {path.name}: {', '.join(twice)}")
    return {row[0]: Departure(*row) for row in found}
