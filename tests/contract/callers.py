"""Who calls: tokens for people and credentials for services, minted with the stack's own secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from harness import Stack
from services.chassis import tokens
from services.chassis.tokens import Credential

CUSTOMER = UUID("00000000-0000-0000-0000-000000000001")
FLAGGED = UUID("00000000-0000-0000-0000-000000000002")
STAFF = UUID("00000000-0000-0000-0000-000000000009")
CALLER_OF = {  # whom a service's call is for, where that is not the orchestrator
    "expireOrder": "inventory-service",
    "getSeatMap": "event-service",
    "getAvailability": "event-service",
}
Headers = dict[str, str]


@dataclass(frozen=True)
class Callers:
    """Mints what `Authorization` and the fakes' keys have to say. A login made here stands until somebody ends it."""

    jwt_secret: str
    internal_secret: str
    smu_key: str
    stripe_key: str

    @classmethod
    def of(cls, stack: Stack) -> Callers:
        """Those that this stack admits."""
        env = stack.env("user-service")
        names = ("JWT_SECRET", "INTERNAL_JWT_SECRET", "SMU_API_KEY", "STRIPE_SECRET_KEY")
        return cls(*(env[name] for name in names))

    def token(self, user_id: UUID, kind: str = "access") -> str:
        """A token of a login of its own."""
        role = "staff" if user_id == STAFF else "customer"
        return tokens.issue(self.jwt_secret, user_id, role, str(uuid4()), kind)

    def service(self, name: str) -> Headers:
        """A service's credential."""
        return {"Authorization": Credential(name, self.internal_secret).header()}

    def headers(self, operation: Mapping[str, Any], schemes: list[str], user_id: UUID | None) -> Headers:
        """What opens an operation to `user_id`, to the service that it is for, or to anybody (None: nothing)."""
        if user_id is None or not schemes:
            return {}
        scheme = schemes[0]
        if scheme == "service":
            return self.service(CALLER_OF.get(operation.get("operationId", ""), "orchestrator-service"))
        keys = {"smuKey": {"X-Contacts-Key": self.smu_key}, "stripeKey": {"Authorization": f"Bearer {self.stripe_key}"}}
        if scheme in keys:
            return keys[scheme]
        return {"Authorization": f"Bearer {self.token(user_id, 'refresh' if scheme == 'refresh' else 'access')}"}


def schemes_of(document: Mapping[str, Any], operation: Mapping[str, Any]) -> list[str]:
    """The names of the security schemes that an operation asks for; empty when it is open."""
    wanted = operation.get("security", document.get("security", []))
    return [name for requirement in wanted for name in requirement]
