"""Keys, settings and unique ids for tests that build a service in the test process."""

from __future__ import annotations

from uuid import UUID, uuid4

from harness.runtime import variables
from services.chassis import tokens
from services.chassis.keys import PublicKeys, SigningKey
from services.chassis.settings import ProcessSettings
from services.chassis.tokens import Credential

_VALUES = variables.resolve({}, {}, frozenset())
USER_KEYS = PublicKeys.parse(_VALUES["USER_PUBLIC_KEYS"], "user-service")
SERVICE_KEYS = PublicKeys.parse(_VALUES["SERVICE_PUBLIC_KEYS"])


def key_environment(service: str) -> dict[str, str]:
    """Return the variables with the keys of `service`."""
    private = _VALUES[f"{service.removesuffix('-service').upper()}_PRIVATE_KEY"]
    return {"PRIVATE_KEY": private, **{name: _VALUES[name] for name in ("USER_PUBLIC_KEYS", "SERVICE_PUBLIC_KEYS")}}


def signing_key(service: str) -> SigningKey:
    """Return the private key of `service`."""
    return SigningKey.parse(key_environment(service)["PRIVATE_KEY"])


USER_KEY = signing_key("user-service")


def process_settings(service: str, log_level: str = "INFO") -> ProcessSettings:
    """Return the settings of a process that does not listen."""
    return ProcessSettings(service, 1, "127.0.0.1", signing_key(service), USER_KEYS, SERVICE_KEYS, log_level, 4)


def user_token(user_id: UUID, role: str = "customer", sid: str = "", kind: str = "access") -> str:
    """Return a user token. Without `sid`, it belongs to a new login."""
    return tokens.issue(USER_KEY, user_id, role, sid or new_id(), kind)


def make_credential(caller: str, called: str) -> Credential:
    """Return the credential with which `caller` calls `called`."""
    return Credential(caller, signing_key(caller), called)


def credential_headers(caller: str, called: str) -> dict[str, str]:
    """Return the headers with which `caller` calls `called`."""
    return {"Authorization": make_credential(caller, called).header()}


def new_id() -> str:
    return str(uuid4())


def new_key(step: str = "step") -> str:
    """Return a unique key of an effect."""
    return f"test:{uuid4()}:1:{step}"
