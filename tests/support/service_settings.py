"""Secrets, settings and unique ids for tests that build a service in the test process."""

from __future__ import annotations

from uuid import uuid4

from services.chassis.settings import ProcessSettings
from services.chassis.tokens import Credential

JWT_SECRET = "test-jwt-secret-test-jwt-secret-test"
INTERNAL_SECRET = "test-internal-secret-test-internal-secret"


def process_settings(service: str) -> ProcessSettings:
    """Return the settings of a process that does not listen."""
    return ProcessSettings(service, 1, "127.0.0.1", JWT_SECRET, INTERNAL_SECRET, "INFO", 4)


def credential_headers(caller: str) -> dict[str, str]:
    """Return the headers that authenticate the service `caller`."""
    return {"Authorization": Credential(caller, INTERNAL_SECRET).header()}


def new_id() -> str:
    return str(uuid4())


def new_key(step: str = "step") -> str:
    """Return a unique key of an effect."""
    return f"test:{uuid4()}:1:{step}"
