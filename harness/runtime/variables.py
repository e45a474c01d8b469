"""Values for the variables of compose.yaml: defaults for a demo, and secrets that each run directory generates once."""

from __future__ import annotations

import base64
import os
import re
import secrets
import string
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from harness.errors import StackError
from harness.runtime.compose import ROOT

NATIVE_ENV = Path(__file__).with_name("native.env")
RANDOM = re.compile(r"@random:(\d+)|@private_key")
PUBLIC = re.compile(r"@public_key:(\w+)")
SETTING = re.compile(r'\benv\.\w+\(\s*"([A-Z][A-Z0-9_]*)"')
ALPHABET = string.ascii_letters + string.digits  # safe in a URL, a DSN, SQL and a shell alike


def read(path: Path) -> dict[str, str]:
    """Return the variables of an env file. Raises StackError for a line that is not NAME=value."""
    values = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            if not equals:
                raise StackError(f"{path}: not NAME=value: {line}")
            values[name.strip()] = value.strip()
    return values


def resolve(known: Mapping[str, str], given: Mapping[str, str], used: frozenset[str]) -> dict[str, str]:
    """Return the defaults of native.env, with the secrets `known` from an earlier run, overridden by `given`.

    The environment and .env are ignored on purpose, so that no suite uses a developer's real Stripe key.
    Raises StackError for a given name that is not `used` in compose.yaml, because it is a typing error.
    """
    defaults = read(NATIVE_ENV)
    unknown = given.keys() - defaults.keys() - used
    if unknown:
        raise StackError(
            f"compose.yaml has no variable {', '.join(sorted(unknown))}. Known variables: {', '.join(sorted(used))}"
        )
    values = {
        name: known.get(name, _generate(value)) if RANDOM.search(value) else value for name, value in defaults.items()
    }
    return _derive_public_keys(values | dict(given))


def find_ignored(values: Mapping[str, str], given: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Return the settings that the stack does not use, with their source: {name: "environment" or ".env"}.

    `values` are those that it uses. `names` are known besides those that a service reads. The ones `given` are used.
    """
    read_by_services = (SETTING.findall(path.read_text()) for path in (ROOT / "services").glob("*/settings.py"))
    known = {*values, *names}.union(*read_by_services) - {*given}
    ignored = {name: "environment" for name in known if os.environ.get(name, "") not in ("", values.get(name))}
    if (own := ROOT / ".env").exists():
        changed = read(own).items() - read(ROOT / ".env.example").items() - values.items()
        generated = {name for name, value in read(NATIVE_ENV).items() if RANDOM.search(value) or PUBLIC.search(value)}
        ignored |= {name: ".env" for name, _ in changed if name in known - generated and name not in ignored}
    return dict(sorted(ignored.items()))


def render_example(path: Path) -> str:
    """Return the env file at `path` with a new value for every empty secret, ready for `docker compose`."""
    made = {name: value for name, value in read(NATIVE_ENV).items() if RANDOM.search(value) or PUBLIC.search(value)}
    empty = {name for name, value in read(path).items() if not value}
    filled = _derive_public_keys(read(path) | {name: _generate(value) for name, value in made.items() if name in empty})

    def fill(line: str) -> str:
        name, equals, value = line.partition("=")
        return line + filled[name] if equals and not value and name in made else line

    return "\n".join(map(fill, path.read_text().splitlines())) + "\n"


def _generate(value: str) -> str:
    return RANDOM.sub(lambda found: _random(int(found[1])) if found[1] else _private_key(), value)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _private_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()


def _derive_public_keys(values: Mapping[str, str]) -> dict[str, str]:
    return {name: PUBLIC.sub(lambda found: _public_key(values[found[1]]), value) for name, value in values.items()}


def _public_key(private_key: str) -> str:
    key = load_der_private_key(base64.b64decode(private_key), password=None).public_key()
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
