"""The public API as Python methods: the requests of a customer's app and of a gate's scanner.

Each method returns an `ApiResponse`, also for a refusal. `ApiResponse.must` raises unless the request succeeded.
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

NEW_PASSWORD = "correct horse"  # noqa: S105 - of the accounts that tests and demos register
PASSWORD = "password123"  # noqa: S105 - the password of the seed users, which the README shows
TIMEOUT_SECONDS = 15.0
RECENT_REQUESTS: deque[tuple[str, str]] = deque(maxlen=200)
"""The last requests of this process, each with its correlation id and its `METHOD path → status`."""


@dataclass(frozen=True)
class ApiResponse:
    """A response: `data` of a success, `error_code` of a refusal, `body` with the raw bytes of both."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def envelope(self) -> dict[str, Any]:
        """The whole JSON body, with amounts as Decimal."""
        return dict(json.loads(self.body, parse_float=Decimal))

    @property
    def data(self) -> Any:
        """The `data` of a success. Raises KeyError for a refusal."""
        return self.envelope["data"]

    @property
    def error_code(self) -> str | None:
        """The code of a refusal, or None for a success."""
        return self.envelope.get("error_code")

    def must(self, status: int | None = None) -> Any:
        """Return the data of a success, or the envelope of an expected refusal.

        Raises AssertionError with the body if the status is not `status` (default: any 2xx).
        """
        expected = self.status == status if status else self.status < 300
        if not expected:
            raise AssertionError(f"expected {status or '2xx'}, got {self.status}: {self.body[:500]!r}")
        return self.data if self.status < 300 else self.envelope


@dataclass
class Api:
    """One caller of one address (the gateway, or a service directly). Thread-safe after `login`."""

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
        """Send one request. Raises a urllib3 HTTPError when no response arrives."""
        sent = {"Authorization": f"Bearer {token or self.token}"} if token or self.token else {}
        if body is not None:
            sent["Content-Type"] = "application/json"
        content = body if isinstance(body, bytes | None) else json.dumps(body, default=float).encode()
        answer = self.pool.request(
            method, self.url + path, body=content, headers={**sent, **(headers or {})}, timeout=TIMEOUT_SECONDS
        )
        RECENT_REQUESTS.append((answer.headers.get("X-Correlation-ID", ""), f"{method} {path} → {answer.status}"))
        return ApiResponse(answer.status, answer.data, answer.headers)

    def get(self, path: str, **headers: str) -> ApiResponse:
        """Send a GET request."""
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> ApiResponse:
        """Send a POST request with a JSON body (default: an empty object)."""
        return self.call("POST", path, {} if body is None else body, headers=headers)

    # ── accounts

    def login(self, email: str, password: str = PASSWORD) -> Self:
        """Log in and store the tokens."""
        data = self.post("/api/auth/login", {"email": email, "password": password}).must(200)
        self.token, self.refresh_token, self.user = data["access_token"], data["refresh_token"], data["user"]
        return self

    def register(self, email: str | None = None) -> Self:
        """Create an account without credits and log in."""
        email = email or f"u{uuid4().hex[:12]}@example.com"
        phone = f"+659{uuid4().int % 10**7:07d}"
        self.post("/api/auth/register", {"email": email, "phone": phone, "password": NEW_PASSWORD}).must(201)
        return self.login(email, NEW_PASSWORD)

    @property
    def user_id(self) -> str:
        """The id of the user that is logged in."""
        return str(self.user["user_id"])

    # ── scenario 1

    def reserve(self, seat_id: str, **headers: str) -> ApiResponse:
        """Hold a seat."""
        return self.post("/api/reserve", {"seat_id": seat_id}, **headers)

    def pay(self, order_id: str) -> ApiResponse:
        """Pay for a held seat."""
        return self.post("/api/pay", {"order_id": order_id})

    def verify_otp(self, otp_code: str, order_id: str | None = None) -> ApiResponse:
        """Enter the one-time code of a flagged purchase."""
        return self.post("/api/verify-otp", {"otp_code": otp_code, **({"order_id": order_id} if order_id else {})})

    def order(self, order_id: str) -> ApiResponse:
        """Read one of the caller's orders."""
        return self.get(f"/api/orders/{order_id}")

    def balance(self) -> Decimal:
        """Return the caller's spendable credits."""
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
        """Change a transfer: `dispute` (with a reason), `cancel`, `reverse` or `dismiss`."""
        return self.post(f"/api/transfer/{verb}", {"transfer_id": transfer_id, **fields})

    # ── scenario 3

    def qr(self, seat_id: str) -> ApiResponse:
        """Request a fresh QR payload."""
        return self.get(f"/api/tickets/{seat_id}/qr")

    def scan(self, qr_payload: str, hall_id: str, event_id: str | None = None, **headers: str) -> ApiResponse:
        """Scan a QR payload at the gate of a hall, which may be set to one event."""
        gate = {"hall_id": hall_id} if event_id is None else {"hall_id": hall_id, "event_id": event_id}
        return self.post("/api/verify", {"qr_payload": qr_payload, **gate}, **headers)


@dataclass
class Inbox:
    """The inbox of the fake SMU: every message that it sent to a phone."""

    url: str
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=64))

    def newest_code(self, mobile: str) -> str:
        """Return the newest code for a phone. Raises LookupError if no code was sent."""
        messages = self.messages(mobile)
        codes = [str(message["code"]) for message in messages if message.get("code")]
        if not codes:
            raise LookupError(f"no code was sent to {mobile}")
        return codes[0]

    def messages(self, mobile: str) -> list[dict[str, Any]]:
        """Return all messages for a phone, newest first."""
        answer = self.pool.request(
            "GET", f"{self.url}/inbox", fields={"mobile": mobile}, headers={"Accept": "application/json"}
        )
        found = json.loads(answer.data)
        return list(found["messages"])
