"""Users of a test: clients of the public API, each with an account, who record every secret that they send or get."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from harness.api_client import PASSWORD, Api, ApiResponse
from services.chassis.keys import SigningKey

SECRET_FIELDS = frozenset(
    {"password", "otp_code", "seller_otp", "buyer_otp", "access_token", "refresh_token", "qr_payload", "client_secret"}
)
STATUSES_WITH_SECRETS = (200, 201, 401)  # the request was accepted, or its password or code was checked
MAX_BYTES = 10_000  # larger bodies are seat maps, which contain no secrets


@dataclass
class Person(Api):
    """A client with a phone. It adds each secret to `secrets`, so that a test can search the logs for them."""

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
        """Send one request, see `Api.call`."""
        answer = super().call(method, path, body, headers, token)
        if answer.status in STATUSES_WITH_SECRETS:
            self._keep(body)
        if answer.status < 300 and len(answer.body) < MAX_BYTES and answer.body.startswith(b"{"):
            self._keep(json.loads(answer.body).get("data"))
        return answer

    def _keep(self, content: Any) -> None:
        if isinstance(content, dict):
            self.secrets |= {str(value) for name, value in content.items() if name in SECRET_FIELDS and value}

    @property
    def email(self) -> str:
        """The address that receives the e-mails."""
        return str(self.user["email"])

    def balance(self) -> Any:
        """Spendable credits. The type is Any, so that tests can compare them with integers."""
        return super().balance()

    def top_up(self, amount: Any, **headers: str) -> ApiResponse:
        """Create a PaymentIntent."""
        return self.post("/api/credits/topup", {"amount": amount}, **headers)

    def resend(self, **subject: str) -> ApiResponse:
        """Request another one-time password for `order_id` or `transfer_id`."""
        return self.post("/api/otp/resend", subject)

    def at(self, url: str) -> Person:
        """The same user, as a client of another address."""
        return replace(self, url=url)

    def refund(self, order_id: str) -> ApiResponse:
        """Refund a sale. Only staff may do this."""
        return self.post(f"/api/orders/{order_id}/refund")


def token(key: str, user_id: str, role: str, kind: str = "access", **claims: Any) -> str:
    """Return a token as User issues it with its key (§11). `claims` replace or add claims, and None drops one."""
    now = int(time.time())
    defaults = {"sub": user_id, "role": role, "iat": now, "exp": now + 900, "type": kind, "iss": "ticketremaster"}
    payload = {**defaults, "jti": str(uuid4()), "sid": str(uuid4()), **claims}
    return SigningKey.parse(key).sign({k: v for k, v in payload.items() if v is not None})


def credential(key: str, caller: str, called: str, **claims: Any) -> str:
    """Return the credential of a call by the service `caller`, which has this private key, to `called`."""
    now = int(time.time())
    payload = {"sub": caller, "aud": called, "iss": "ticketremaster", "iat": now, "exp": now + 300, **claims}
    return SigningKey.parse(key).sign(payload)


__all__ = ["PASSWORD", "Person", "credential", "token"]
