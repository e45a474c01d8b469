"""The running system as tests use it: creates users, orders and transfers, and reads the databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from itertools import count
from random import randrange
from typing import Any, TypeVar

import urllib3

from harness import Stack, db, invariants
from harness.api_client import Inbox
from harness.runtime.process import wait_for
from tests.support import inserts
from tests.support.fakes_control import Fake
from tests.support.people import Person, token
from tests.support.running_stack import SeatPool
from tests.support.waiting import WAIT_SECONDS, wait_until

T = TypeVar("T")
SERVICES = ("user-service", "order-service", "event-service", "inventory-service", "orchestrator-service")


class TestSystem:
    """The stack with users and seats for tests. Each user and each seat belongs to one test."""

    __test__ = False  # else pytest collects the class as a test

    def __init__(self, stack: Stack, seats: SeatPool) -> None:
        self.stack = stack
        self.inbox = Inbox(stack.url("fake-smu"))
        self.smu = Fake(stack.url("fake-smu"))
        self.stripe = Fake(stack.url("fake-stripe"))
        self.secrets: set[str] = set()
        self.phones: set[str] = set()
        self._seats = seats
        self._pool = urllib3.PoolManager(maxsize=256, retries=False)
        self._phones = count(81_000_000 + randrange(9_000_000))

    # ── people

    def person(self, credits: str = "1000.00", *, flagged: bool = False, role: str = "customer") -> Person:
        """Insert a user and return them with an access token."""
        return self.people(1, credits, flagged=flagged, role=role)[0]

    def staff(self) -> Person:
        """Insert a staff member."""
        return self.person("0.00", role="staff")

    def people(
        self, number: int, credits: str = "1000.00", *, flagged: bool = False, role: str = "customer"
    ) -> list[Person]:
        """Insert several users. Their tokens are issued here, because each login would cost a bcrypt hash."""
        rows = [inserts.User(role, Decimal(credits), flagged, phone=f"+65{next(self._phones)}") for _ in range(number)]
        with closing(self.connect("users_db")) as users:
            inserts.users(users, rows)
        return [self._client(row) for row in rows]

    def _client(self, row: inserts.User) -> Person:
        key = self.env("user-service")["PRIVATE_KEY"]
        user = {"user_id": row.user_id, "email": row.email, "role": row.role}
        self.phones.add(row.phone)
        access = token(key, row.user_id, row.role)
        self.secrets.add(access)
        return Person(self.stack.url("api-gateway"), access, user, None, self._pool, row.phone, self.secrets)

    def visitor(self, url: str = "") -> Person:
        """A client without a token that calls the gateway, or `url`."""
        return Person(url or self.stack.url("api-gateway"), pool=self._pool, secrets=self.secrets)

    def hang_up(self) -> None:
        """Close idle connections. The gateway closes them after 75 seconds, and a call at that moment would fail."""
        self._pool.clear()

    def env(self, service: str) -> dict[str, str]:
        """The environment variables of a service."""
        return self.stack.env(service)

    def code(self, person: Person) -> str:
        """The newest one-time password that a user received by SMS."""
        code = self.inbox.newest_code(person.phone)
        self.secrets.add(code)
        return code

    def pay_by_card(self, intent_id: str, card: str = "pm_card_visa") -> int:
        """Confirm a PaymentIntent as the payer's browser does, and return the HTTP status of Stripe."""
        url = f"{self.stripe.url}/v1/payment_intents/{intent_id}/confirm"
        key = self.env("user-service")["STRIPE_SECRET_KEY"]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-www-form-urlencoded"}
        return self._pool.request("POST", url, body=f"payment_method={card}".encode(), headers=headers).status

    # ── seats and tickets

    def seat(self) -> str:
        """The id of an AVAILABLE seat of event 2 (HALL-B)."""
        return self._seats.take()

    def insert_event(self, seats: int, begins_in_hours: float = 720, hall: str = "HALL-B") -> tuple[str, list[str]]:
        """Insert an event with AVAILABLE seats. Returns its id and the ids of the seats."""
        with closing(self.connect("events_db")) as events_db, closing(self.connect("seats_db")) as seats_db:
            event = inserts.event(events_db, seats, begins_in_hours, hall)
            return event, inserts.seats(seats_db, seats, "CAT1", event)

    def set_limits(self, holds: int, tickets: int, event: str = inserts.EVENT) -> None:
        """Set the holds and tickets that one user may have of an event. 0 is no limit."""
        upsert = """INSERT INTO event_limits VALUES (%s, %s, %s)
            ON CONFLICT (event_id) DO UPDATE SET max_holds_per_user = excluded.max_holds_per_user,
                max_tickets_per_user = excluded.max_tickets_per_user"""
        self.rows("seats_db", upsert, event, holds, tickets)

    def hold_seat(self, buyer: Person, seat: str | None = None) -> tuple[str, str]:
        """Reserve a seat for `buyer`. Returns the ids of seat and order."""
        seat = seat or self.seat()
        return seat, buyer.reserve(seat).must(200)["order_id"]

    def buy_seat(self, buyer: Person, seat: str | None = None) -> tuple[str, str]:
        """Reserve a seat for `buyer` and pay for it. Returns the ids of seat and order."""
        seat, order_id = self.hold_seat(buyer, seat)
        buyer.pay(order_id).must(200)
        return seat, order_id

    def insert_tickets(self, owner: Person, number: int = 1) -> list[str]:
        """Insert sales to `owner` into the databases. Returns the ids of the seats."""
        seats = [self.seat() for _ in range(number)]
        inserts.free_sales(self.connect, owner.user_id, seats)
        return seats

    def insert_ticket(self, owner: Person) -> str:
        """Insert one sale to `owner` into the databases. Returns the id of the seat."""
        return self.insert_tickets(owner)[0]

    def start_transfer(self, seller: Person, buyer: Person, seat: str, amount: Any = 100) -> str:
        """Initiate a transfer, which then waits for both one-time passwords. Returns its id."""
        answer = seller.initiate(seat, seller.user_id, buyer.user_id, amount)
        return str(answer.must(201)["transfer_id"])

    def complete_transfer(self, seller: Person, buyer: Person, seat: str, amount: Any = 100) -> str:
        """Initiate a transfer and confirm it for both parties. Returns its id."""
        transfer_id = self.start_transfer(seller, buyer, seat, amount)
        codes = {"seller_otp": self.code(seller), "buyer_otp": self.code(buyer)}
        assert seller.confirm(transfer_id, **codes).must(200)["status"] == "COMPLETED"
        return transfer_id

    def dispute_transfer(self, seller: Person, buyer: Person, seat: str, amount: Any = 100) -> str:
        """Complete a transfer and dispute it as the buyer. Returns its id."""
        transfer_id = self.complete_transfer(seller, buyer, seat, amount)
        buyer.transfer("dispute", transfer_id, reason="not what was promised").must(200)
        return transfer_id

    # ── the state of the databases

    def connect(self, database: str) -> Any:
        """Open a connection as superuser in autocommit mode. The caller closes it."""
        return db.connect(self.stack, database)

    def rows(self, database: str, sql: str, *params: Any) -> list[dict[str, Any]]:
        """The rows of a statement that runs as superuser."""
        return db.rows(self.stack, database, sql, *params)

    def seat_row(self, seat: str) -> dict[str, Any]:
        """The row of a seat in the database of Inventory."""
        return db.seat(self.stack, seat)

    def seat_status(self, seat: str) -> str:
        """AVAILABLE, HELD, SOLD or CHECKED_IN."""
        return str(self.seat_row(seat)["status"])

    def order_status(self, order_id: str) -> str:
        """PENDING, CONFIRMED, FAILED, REFUNDED, or `none`."""
        return db.order_status(self.stack, order_id)

    def transfer_row(self, transfer_id: str) -> dict[str, Any]:
        """The row of a transfer in the database of Order."""
        return self.rows("orders_db", "SELECT * FROM transfers WHERE transfer_id = %s", transfer_id)[0]

    def credits(self, person: Person) -> tuple[Any, Any]:
        """Spendable and frozen credits, as decimals."""
        row = self.rows("users_db", "SELECT * FROM users WHERE user_id = %s", person.user_id)[0]
        return row["credit_balance"], row["frozen_credits"]

    def log_lines(self, service: str, having: str = "") -> list[dict[str, Any]]:
        """The JSON lines of a service's log that contain the text `having`."""
        with self.stack.log_path(service).open(encoding="utf-8", errors="replace") as log:
            return [json.loads(line) for line in log if having in line and line.startswith("{")]

    def wait_until(self, what: str, condition: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
        """See `tests.support.waiting.wait_until`."""
        return wait_until(condition, seconds, what)

    def assert_invariants(self, seconds: float = 30.0) -> None:
        """Wait until the system is idle and every invariant holds. Fails with the violations after `seconds`."""
        if not wait_for(lambda: not invariants.find_violations(self.connect), seconds):
            invariants.assert_hold(self.connect)

    @contextmanager
    def clock(self, database: str, ahead_seconds: int) -> Iterator[None]:
        """Run the block with app_now() of `database` ahead of the real time."""
        shift = "UPDATE clock_offset SET shift = make_interval(secs => %s)"
        self.rows(database, shift, ahead_seconds)
        try:
            yield
        finally:
            self.rows(database, shift, 0)

    def is_healthy(self, services: Sequence[str] = SERVICES) -> bool:
        """Whether each service returns 200 from /health."""
        return all(self.health(service).status == 200 for service in services)

    def health(self, service: str) -> urllib3.BaseHTTPResponse:
        """The response of a service's /health, or status 599 if the service is unreachable."""
        try:
            return self._pool.request("GET", f"{self.stack.url(service)}/health", timeout=5)
        except urllib3.exceptions.HTTPError:
            return urllib3.HTTPResponse(status=599)
