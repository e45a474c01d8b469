"""The variables that compose.yaml asks for, natively: demo defaults, and secrets made once a run directory."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from pathlib import Path

from harness.errors import StackError

NATIVE_ENV = Path(__file__).with_name("native.env")
RANDOM = re.compile(r"@random:(\d+)")
ALPHABET = string.ascii_letters + string.digits  # safe in a URL, a DSN, SQL and a shell alike


def read(path: Path) -> dict[str, str]:
    """The NAME=value lines of an env file; raises StackError for any other line."""
    values = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            if not equals:
                raise StackError(f"{path}: not NAME=value: {line}")
            values[name.strip()] = value.strip()
    return values


def resolve(known: Mapping[str, str], given: Mapping[str, str], asked: frozenset[str]) -> dict[str, str]:
    """The demo's values, its secrets as `known` from an earlier run, and over all of them those `given`.

    The environment and .env are left out on purpose: no suite may meet a developer's real Stripe key.
    Raises StackError for a given name that compose.yaml does not ask for, which is a typing error.
    """
    defaults = read(NATIVE_ENV)
    unknown = given.keys() - defaults.keys() - asked
    if unknown:
        raise StackError(
            f"compose.yaml has no variable {', '.join(sorted(unknown))}; it has {', '.join(sorted(asked))}"
        )
    return {
        name: known.get(name, _generate(value)) if RANDOM.search(value) else value for name, value in defaults.items()
    } | dict(given)


def render_example(path: Path) -> str:
    """The env file at `path` with every empty secret made anew, ready for `docker compose`."""
    made = {name: value for name, value in read(NATIVE_ENV).items() if RANDOM.search(value)}

    def fill(line: str) -> str:
        name, equals, value = line.partition("=")
        return line + _generate(made[name]) if equals and not value and name in made else line

    return "\n".join(map(fill, path.read_text().splitlines())) + "\n"


def _generate(value: str) -> str:
    return RANDOM.sub(lambda found: "".join(secrets.choice(ALPHABET) for _ in range(int(found[1]))), value)
