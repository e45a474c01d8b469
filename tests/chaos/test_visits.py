"""The visits make every call of the public API."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from queue import Queue
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from harness.api_client import ApiResponse
from harness.dev.spec_bundle import bundle, operations
from tests.chaos import accounts
from tests.chaos.client import Book, Client
from tests.chaos.ledger import Ledger
from tests.chaos.visits import SCENARIOS, Town, Visit
from tests.contract.exchanges import Contract, Exchange

pytestmark = pytest.mark.chaos

VISITS = 60  # of each scenario. Their choices are random
OF_OTHERS = {("POST", "/api/webhooks/stripe"), ("GET", "/docs"), ("GET", "/health")}  # Stripe, people and Kong
SPEC = bundle("gateway")
CONTRACT = Contract(SPEC)
TOKEN = jwt.encode({"sid": "a login"}, "a key of at least 32 bytes for this test")
EXAMPLES = {(method, path): operation["responses"] for method, path, operation in operations(SPEC)}


@dataclass
class ExampleClient(Client):
    """A client that gets the example of the spec as the answer to each call, and records the call."""

    made: set[tuple[str, str]] = field(default_factory=set)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> ApiResponse:
        """Return the first success of the spec."""
        found = CONTRACT.identify(Exchange("gateway", method, urlsplit(path).path, 200, {}, b""))
        assert found, f"{method} {path} is not in the spec"
        operation = found[:2]
        self.made.add(operation)
        status, response = next(iter(EXAMPLES[operation].items()))
        example = copy.deepcopy(response["content"]["application/json"]["example"])
        if "access_token" in example["data"]:
            example["data"]["access_token"] = TOKEN
        if path == "/api/reserve":
            example["data"]["otp_required"] = True
        return ApiResponse(int(status), json.dumps(example, default=float).encode(), {})


class ExampleTown(Town):
    """A town whose people keep their tokens."""

    def renew(self, person: Client) -> None:
        """Do nothing."""


def make_town(made: set[tuple[str, str]]) -> Town:
    """A town without a system behind it."""
    book = Book(Ledger())

    def client(user_id: str) -> Client:
        user = {"user_id": user_id, "email": f"{user_id}@example.com"}
        return ExampleClient("", TOKEN, user, book=book, made=made)

    inbox = SimpleNamespace(newest_code=lambda _phone: "123456")
    system: Any = SimpleNamespace(inbox=inbox, pay_by_card=lambda _intent: 200)
    seats: Queue[str] = Queue()
    customers: Queue[Client] = Queue()
    for number in range(VISITS * len(SCENARIOS)):
        seats.put(f"seat-{number}")
    for name in ("ann", "bob"):
        customers.put(client(name))
    return ExampleTown(system, book.ledger, client("staff"), seats, ["hot"], customers)


def test_visits_make_every_call_of_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    made: set[tuple[str, str]] = set()
    town, rng = make_town(made), Random(1)
    monkeypatch.setattr(accounts, "Client", partial(ExampleClient, made=made))
    for scenario in SCENARIOS:
        for _ in range(VISITS):
            scenario(Visit(town, rng))
    missing = EXAMPLES.keys() - made - OF_OTHERS
    assert not missing, f"no visit makes {sorted(missing)}"
