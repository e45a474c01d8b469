"""Tokens for people and credentials for services, signed with the keys of the running stack."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg2

from harness import Stack
from services.chassis import tokens
from services.chassis.keys import SigningKey
from services.chassis.tokens import Credential
from tests.support import inserts
from tests.support.endpoints import CALLERS

CUSTOMER = UUID("00000000-0000-0000-0000-000000000001")
FLAGGED = UUID("00000000-0000-0000-0000-000000000002")
STAFF = UUID("00000000-0000-0000-0000-000000000009")
CALLER_OF = {  # the one caller of an internal operation, unless it is the orchestrator
    "expireOrder": "inventory-service",
    "getSeatMap": "event-service",
    "getAvailability": "event-service",
}
Headers = dict[str, str]


@dataclass(frozen=True)
class Credentials:
    """Makes the headers that open an operation. A login made here is valid until a test logs it out."""

    keys: Mapping[str, str]  # as text, because the suite sends its credentials to other processes
    users_dsn: str
    smu_key: str
    stripe_key: str

    @classmethod
    def of(cls, stack: Stack) -> Credentials:
        """Read the keys of a running stack."""
        env = stack.env("user-service")
        keys = {name: stack.env(name)["PRIVATE_KEY"] for name in CALLERS}
        return cls(keys, stack.dsn("users_db"), env["SMU_API_KEY"], env["STRIPE_SECRET_KEY"])

    def _key(self, service: str) -> SigningKey:
        return SigningKey.parse(self.keys[service])

    def token(self, user_id: UUID, kind: str = "access") -> str:
        """Make a token of a new login."""
        role, login = "staff" if user_id == STAFF else "customer", {"sid": str(uuid4()), "jti": ""}
        if kind == "refresh":
            with closing(psycopg2.connect(self.users_dsn)) as users:
                login = inserts.login(users, str(user_id))
        return tokens.issue(self._key("user-service"), user_id, role, login["sid"], kind, token_id=login["jti"])

    def service(self, name: str, document: Mapping[str, Any]) -> Headers:
        """Make the headers of a call from the service `name` to the service of `document`."""
        called = f"{document['info']['title'].split()[0].lower()}-service"
        return {"Authorization": Credential(name, self._key(name), called).header()}

    def headers(self, document: Mapping[str, Any], operation: Mapping[str, Any], user_id: UUID | None) -> Headers:
        """Make the headers that open an operation to `user_id` or to its calling service. None makes none."""
        schemes = list_schemes(document, operation)
        if user_id is None or not schemes:
            return {}
        scheme = schemes[0]
        if scheme == "service":
            return self.service(CALLER_OF.get(operation.get("operationId", ""), "orchestrator-service"), document)
        keys = {"smuKey": {"X-Contacts-Key": self.smu_key}, "stripeKey": {"Authorization": f"Bearer {self.stripe_key}"}}
        if scheme in keys:
            return keys[scheme]
        return {"Authorization": f"Bearer {self.token(user_id, 'refresh' if scheme == 'refresh' else 'access')}"}


def list_schemes(document: Mapping[str, Any], operation: Mapping[str, Any]) -> list[str]:
    """List the security schemes of an operation. An open operation has none."""
    requirements = operation.get("security", document.get("security", []))
    return [name for requirement in requirements for name in requirement]
