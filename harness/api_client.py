"""The public API as verbs, for the demo, the suites and the load: what a customer's or a gate's app would send.

Each verb returns an `ApiResponse`, also for a refusal. `ApiResponse.must` raises unless the request succeeded.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self
from uuid import uuid4

import urllib3

PASSWORD = "password123"  # noqa: S105 - the seed's, in the README
SECONDS = 15.0
RECENT_REQUESTS: deque[tuple[str, str]] = deque(maxlen=200)
"""The last requests of this process: correlation id, and what was asked and answered."""


@dataclass(frozen=True)
class ApiResponse:
    """What came back: `data` of a success, `error_code` of a refusal, the raw bytes of anything else."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def envelope(self) -> dict[str, Any]:
        """The whole envelope."""
        return dict(json.loads(self.body, parse_float=Decimal))

    @property
    def data(self) -> Any:
        """The `data` of a success."""
        return self.envelope["data"]

    @property
    def error_code(self) -> str | None:
        """The code of a refusal; None for a success."""
        return self.envelope.get("error_code")

    def must(self, status: int | None = None) -> Any:
        """The data, or an AssertionError that shows what came instead."""
        expected = self.status == status if status else self.status < 300
        if not expected:
            raise AssertionError(f"expected {status or '2xx'}, got {self.status}: {self.body[:500]!r}")
        return self.data if self.status < 300 else self.envelope


@dataclass
class Api:
    """One caller at one address (the gateway, or a service directly). Thread-safe."""

    url: str
    token: str | None = None
    user: dict[str, Any] = field(default_factory=dict)
    refresh_token: str | None = None
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=64, retries=False))

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> ApiResponse:
        """One request; raises urllib3's errors when there is no answer."""
        sent = {"Authorization": f"Bearer {token or self.token}"} if token or self.token else {}
        if body is not None:
            sent["Content-Type"] = "application/json"
        content = body if isinstance(body, bytes | None) else json.dumps(body, default=float).encode()
        answer = self.pool.request(
            method, self.url + path, body=content, headers={**sent, **(headers or {})}, timeout=SECONDS
        )
        RECENT_REQUESTS.append((answer.headers.get("X-Correlation-ID", ""), f"{method} {path} → {answer.status}"))
        return ApiResponse(answer.status, answer.data, answer.headers)

    def get(self, path: str, **headers: str) -> ApiResponse:
        """GET."""
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> ApiResponse:
        """POST of a JSON body."""
        return self.call("POST", path, {} if body is None else body, headers=headers)

    # ── accounts

    def login(self, email: str, password: str = PASSWORD) -> Self:
        """Log in and keep the tokens."""
        data = self.post("/api/auth/login", {"email": email, "password": password}).must(200)
        self.token, self.refresh_token, self.user = data["access_token"], data["refresh_token"], data["user"]
        return self

    def register(self, email: str | None = None) -> Self:
        """A new account with no credits, logged in."""
        email = email or f"u{uuid4().hex[:12]}@example.com"
        phone = f"+659{uuid4().int % 10**7:07d}"
        self.post("/api/auth/register", {"email": email, "phone": phone, "password": PASSWORD}).must(201)
        return self.login(email)

    def another(self) -> Api:
        """Somebody else at the same address, over the same pool."""
        return Api(self.url, pool=self.pool)

    @property
    def user_id(self) -> str:
        """Whose tokens these are."""
        return str(self.user["user_id"])

    # ── scenario 1

    def reserve(self, seat_id: str, **headers: str) -> ApiResponse:
        """Hold a seat."""
        return self.post("/api/reserve", {"seat_id": seat_id}, **headers)

    def pay(self, order_id: str) -> ApiResponse:
        """Pay for a held seat."""
        return self.post("/api/pay", {"order_id": order_id})

    def verify_otp(self, otp_code: str, order_id: str | None = None) -> ApiResponse:
        """Enter the code of a flagged purchase."""
        return self.post("/api/verify-otp", {"otp_code": otp_code, **({"order_id": order_id} if order_id else {})})

    def order(self, order_id: str) -> ApiResponse:
        """One of the caller's orders."""
        return self.get(f"/api/orders/{order_id}")

    def balance(self) -> Decimal:
        """Spendable credits."""
        return Decimal(self.get("/api/credits/balance").must()["credit_balance"])

    # ── scenario 2

    def initiate(self, seat_id: str, seller: str, buyer: str, amount: Any) -> ApiResponse:
        """Start a transfer."""
        body = {"seat_id": seat_id, "seller_user_id": seller, "buyer_user_id": buyer, "credits_amount": amount}
        return self.post("/api/transfer/initiate", body)

    def confirm(self, transfer_id: str, **codes: str) -> ApiResponse:
        """Enter `seller_otp`, `buyer_otp`, or both."""
        return self.post("/api/transfer/confirm", {"transfer_id": transfer_id, **codes})

    def transfer(self, verb: str, transfer_id: str, **fields: Any) -> ApiResponse:
        """`dispute` (with reason), `cancel`, `reverse`, `dismiss`."""
        return self.post(f"/api/transfer/{verb}", {"transfer_id": transfer_id, **fields})

    # ── scenario 3

    def qr(self, seat_id: str) -> ApiResponse:
        """A fresh QR."""
        return self.get(f"/api/tickets/{seat_id}/qr")

    def scan(self, qr_payload: str, hall_id: str, **headers: str) -> ApiResponse:
        """Scan at the gate."""
        return self.post("/api/verify", {"qr_payload": qr_payload, "hall_id": hall_id}, **headers)


@dataclass
class Inbox:
    """What the fake SMU sent."""

    url: str
    pool: urllib3.PoolManager = field(default_factory=urllib3.PoolManager)

    def newest_code(self, mobile: str) -> str:
        """The last code that went to a phone. Raises LookupError when there is none."""
        messages = self.messages(mobile)
        codes = [str(message["code"]) for message in messages if message.get("code")]
        if not codes:
            raise LookupError(f"no code was sent to {mobile}")
        return codes[0]

    def messages(self, mobile: str) -> list[dict[str, Any]]:
        """Everything that went to a phone, newest first."""
        answer = self.pool.request(
            "GET", f"{self.url}/inbox", fields={"mobile": mobile}, headers={"Accept": "application/json"}
        )
        found = json.loads(answer.data)
        return list(found["messages"])
