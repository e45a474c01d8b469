"""People of a test: callers of the public API with an account of their own, and everything secret that they saw."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import jwt

from harness.api_client import PASSWORD, Api, ApiResponse

SECRET_FIELDS = frozenset(
    {"password", "otp_code", "seller_otp", "buyer_otp", "access_token", "refresh_token", "qr_payload", "client_secret"}
)
TAKEN_SERIOUSLY = (200, 201, 401)  # accepted, or judged to be wrong: a real password or code either way
MOST_BYTES_LOOKED_AT = 10_000  # seat maps are larger, and hold no secret


@dataclass
class Person(Api):
    """A caller with a phone. What it sends and gets of secrets is kept in `secrets`, to be looked for in logs."""

    phone: str = ""
    secrets: set[str] = field(default_factory=set)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> ApiResponse:
        """One request, as `Api.call`."""
        answer = super().call(method, path, body, headers, token)
        if answer.status in TAKEN_SERIOUSLY:
            self._keep(body)
        if answer.status < 300 and len(answer.body) < MOST_BYTES_LOOKED_AT and answer.body.startswith(b"{"):
            self._keep(json.loads(answer.body).get("data"))
        return answer

    def _keep(self, content: Any) -> None:
        if isinstance(content, dict):
            self.secrets |= {str(value) for name, value in content.items() if name in SECRET_FIELDS and value}

    @property
    def email(self) -> str:
        """The address that letters go to."""
        return str(self.user["email"])

    def balance(self) -> Any:
        """Spendable credits, a decimal: tests hold it against plain numbers."""
        return super().balance()

    def top_up(self, amount: Any, **headers: str) -> ApiResponse:
        """Ask for a PaymentIntent."""
        return self.post("/api/credits/topup", {"amount": amount}, **headers)

    def resend(self, **subject: str) -> ApiResponse:
        """Ask for another code for `order_id` or `transfer_id`."""
        return self.post("/api/otp/resend", subject)

    def refund(self, order_id: str) -> ApiResponse:
        """Staff: take a sale back."""
        return self.post(f"/api/orders/{order_id}/refund")


def token(secret: str, user_id: str, role: str, kind: str = "access", **claims: Any) -> str:
    """A user's token as User issues it (§11), or with `claims` of its own; None leaves a claim out."""
    now = int(time.time())
    issued = {"sub": user_id, "role": role, "iat": now, "exp": now + 900, "type": kind, "iss": "ticketremaster"}
    whole = {**issued, "jti": str(uuid4()), "sid": str(uuid4()), **claims}
    return jwt.encode({k: v for k, v in whole.items() if v is not None}, secret, algorithm="HS256")


def credential(secret: str, caller: str, **claims: Any) -> str:
    """An internal call's credential, as the service `caller` mints it."""
    now = int(time.time())
    issued = {"sub": caller, "aud": "internal", "iss": "ticketremaster", "iat": now, "exp": now + 300, **claims}
    return jwt.encode(issued, secret, algorithm="HS256")


__all__ = ["PASSWORD", "Person", "credential", "token"]
