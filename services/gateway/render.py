"""Render kong.yml: `python -m services.gateway.render OUTPUT [--mode 600]`. Standard library only.

DB-less Kong reads no environment variables in its declarative file, so this program fills them in before Kong starts.
It inserts each value as JSON, because YAML reads any JSON value unchanged.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("kong.yml")
PLACEHOLDER = re.compile(r"\{\{ ([A-Z_]+) \}\}")
P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")  # of a public key in DER
P256_BYTES = len(P256_PREFIX) + 64
# A probe finds a hung target within 3 s and a healthy one within 1 s. `/health/live` does not depend on a database or a
# neighbour, whose failure would otherwise take out all targets at once. For the same reason a 500 or 503 of a service
# counts as an answer. Kong itself writes the 502 for a broken connection and the 504 for a timeout.
CHECKS: dict[str, Any] = {
    "active": {
        "http_path": "/health/live",
        "timeout": 1,  # seconds, as the intervals
        "healthy": {"interval": 1, "http_statuses": [200], "successes": 1},
        "unhealthy": {"interval": 1, "tcp_failures": 1, "timeouts": 2, "http_failures": 2},
    },
    "passive": {"unhealthy": {"http_statuses": [502], "tcp_failures": 1, "timeouts": 2, "http_failures": 1}},
}


class RenderError(Exception):
    """The environment makes no valid configuration. The message is one line with the variable to set."""


def _text(env: Mapping[str, str], name: str, default: str | None = None) -> str:
    value = env.get(name) or default
    if value is None:
        raise RenderError(f"{name} is not set: set it in the environment (see .env.example)")
    if not value.isprintable():
        raise RenderError(f"{name} contains characters that cannot be printed")
    return value


def _keys(env: Mapping[str, str], name: str) -> list[dict[str, str]]:
    """User's public keys as Kong's `jwt_secrets`. The services derive each id in the same way."""
    return [_key(name, text.strip()) for text in _text(env, name).split(",")]


def _key(name: str, text: str) -> dict[str, str]:
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error:
        der = b""
    if len(der) != P256_BYTES or not der.startswith(P256_PREFIX):
        raise RenderError(f"{name} is not a list of public keys: see .env.example")
    pem = f"-----BEGIN PUBLIC KEY-----\n{text[:64]}\n{text[64:]}\n-----END PUBLIC KEY-----\n"
    return {"key": hashlib.sha256(der).hexdigest()[:16], "algorithm": "ES256", "rsa_public_key": pem}


def _upstream(env: Mapping[str, str], name: str, service: str) -> dict[str, object]:
    """The targets of a service. A single one has no checks, because no other target could take its requests."""
    value = _text(env, name)
    targets = value.removeprefix("http://").rstrip("/").split(",")
    if not value.startswith("http://") or not all(re.fullmatch(r"[A-Za-z0-9.-]+:\d{1,5}", each) for each in targets):
        raise RenderError(f"{name}={value} is not of the form http://host:port or http://host:port,host:port")
    if len(set(targets)) < len(targets):
        raise RenderError(f"{name}={value} contains an address twice")
    checks = {"healthchecks": CHECKS} if len(targets) > 1 else {}
    return {"name": f"{service}.upstream", "targets": [{"target": target} for target in targets], **checks}


def _limit(env: Mapping[str, str], name: str, default: int) -> int:
    value = _text(env, name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise RenderError(f"{name}={value} is not a whole number of requests above 0")
    return int(value)


def _origins(env: Mapping[str, str], name: str, default: str) -> list[str]:
    origins = [origin.strip() for origin in _text(env, name, default).split(",")]
    for origin in origins:
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d+)?", origin):
            raise RenderError(f"{name}: {origin!r} is not an origin such as http://localhost:3000")
    return origins


def values(env: Mapping[str, str]) -> dict[str, object]:
    """The values of the template's placeholders. Raises RenderError for the first missing or malformed value."""
    return {
        "USER_PUBLIC_KEYS": _keys(env, "USER_PUBLIC_KEYS"),
        "UPSTREAMS": [
            _upstream(env, "USER_SERVICE_URL", "user-service"),
            _upstream(env, "EVENT_SERVICE_URL", "event-service"),
            _upstream(env, "ORCHESTRATOR_URL", "orchestrator-service"),
        ],
        "RATE_LIMIT_PER_MINUTE": _limit(env, "RATE_LIMIT_PER_MINUTE", 600),
        "RATE_LIMIT_PUBLIC_PER_MINUTE": _limit(env, "RATE_LIMIT_PUBLIC_PER_MINUTE", 120),
        "CORS_ORIGINS": _origins(env, "CORS_ORIGINS", "http://localhost:3000"),
    }


def render(env: Mapping[str, str], template: str | None = None) -> str:
    """The declarative configuration for this environment. Raises RenderError."""
    found = values(env)

    def fill(match: re.Match[str]) -> str:
        if match[1] not in found:
            raise RenderError(f"the template has an unknown placeholder {match[1]}: add it to `values` in render.py")
        return json.dumps(found[match[1]], ensure_ascii=False)

    lines = (template if template is not None else TEMPLATE.read_text()).splitlines()
    body = (line for line in lines if not line.startswith("#"))  # the comment at the top describes the template
    return "\n".join(PLACEHOLDER.sub(fill, line) for line in body) + "\n"


def write(path: Path, text: str, mode: int) -> None:
    """Replace the file at `path` atomically. `mode` restricts its readers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        os.fchmod(file.fileno(), mode)  # the umask has restricted the mode of the new file
        file.write(text)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Render from the process environment. Returns the exit status, and prints an error to stderr in one line."""
    parser = argparse.ArgumentParser(prog="python -m services.gateway.render")
    parser.add_argument("output", type=Path, help="the path that Kong reads (KONG_DECLARATIVE_CONFIG)")
    parser.add_argument("--mode", type=lambda text: int(text, 8), default=0o600, help="octal, default 600")
    options = parser.parse_args(arguments)
    try:
        write(options.output, render(os.environ), options.mode)
    except (RenderError, OSError) as problem:
        print(f"gateway: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… | head` ends it without a traceback
    sys.exit(main())
