"""Signs tokens as the measured system does.

Systems before version 2 of the tokens share secrets between signers and verifiers (HS256). Later ones have key pairs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import jwt

from harness.bench.system import INVENTORY, ORCHESTRATOR, USER, System
from services.chassis.keys import SigningKey

ISSUER, SHARED_AUDIENCE = "ticketremaster", "internal"
ACCESS_SECONDS, CREDENTIAL_SECONDS = 900, 300


def sign_access_token(system: System, user_id: str, role: str) -> str:
    """Return an access token as the User service issues it."""
    claims = {"sub": user_id, "role": role, "type": "access", "jti": str(uuid4()), "sid": str(uuid4())}
    return _sign(system, USER, "JWT_SECRET", {**claims, **_lifetime(ACCESS_SECONDS)})


def sign_credential(system: System) -> str:
    """Return the authorization header of the orchestrator for calls to Inventory."""
    is_shared = "INTERNAL_JWT_SECRET" in system.env(ORCHESTRATOR)
    claims = {"sub": ORCHESTRATOR, "aud": SHARED_AUDIENCE if is_shared else INVENTORY}
    return f"Bearer {_sign(system, ORCHESTRATOR, 'INTERNAL_JWT_SECRET', {**claims, **_lifetime(CREDENTIAL_SECONDS)})}"


def _lifetime(seconds: int) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "iat": now, "exp": now + seconds}


def _sign(system: System, service: str, secret: str, claims: Mapping[str, Any]) -> str:
    variables = system.env(service)
    if secret in variables:
        return jwt.encode(dict(claims), variables[secret], algorithm="HS256")
    # The variables of a whole system name the service of each key. A program has only its own.
    of_system = f"{service.removesuffix('-service').upper()}_PRIVATE_KEY"
    return SigningKey.parse(variables.get("PRIVATE_KEY") or variables[of_system]).sign(claims)
