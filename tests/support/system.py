"""The running stack as tests use it: it creates people, seats and tickets, and reads what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from itertools import count
from random import randrange
from typing import Any, TypeVar
from uuid import uuid4

import urllib3

from harness import Stack, db, invariants
from harness.api_client import Inbox
from harness.runtime.process import wait_for
from tests.support import inserts
from tests.support.fakes_control import Fake
from tests.support.people import Person, token
from tests.support.running_stack import Seats

T = TypeVar("T")
SERVICES = ("user-service", "order-service", "event-service", "inventory-service", "orchestrator-service")
WAIT_SECONDS = 15.0


class TestSystem:
    """Creates people, seats and tickets, and reads the databases. Each person and seat is used by one test only."""

    __test__ = False  # pytest would collect a class whose name begins with Test

    def __init__(self, stack: Stack, seats: Seats) -> None:
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
        """Somebody with an account and an access token."""
        return self.people(1, credits, flagged=flagged, role=role)[0]

    def staff(self) -> Person:
        """Somebody of the staff."""
        return self.person("0.00", role="staff")

    def people(
        self, number: int, credits: str = "1000.00", *, flagged: bool = False, role: str = "customer"
    ) -> list[Person]:
        """Several at once. Their tokens are minted here: a login costs a bcrypt each."""
        rows = [
            inserts.User(str(uuid4()), f"+65{next(self._phones)}", role, Decimal(credits), flagged)
            for _ in range(number)
        ]
        with closing(self.connect("users_db")) as users:
            inserts.users(users, rows)
        return [self._caller(row) for row in rows]

    def _caller(self, row: inserts.User) -> Person:
        secret = self.env("user-service")["JWT_SECRET"]
        user = {"user_id": row.user_id, "email": row.email, "role": row.role}
        self.phones.add(row.phone)
        access = token(secret, row.user_id, row.role)
        self.secrets.add(access)
        return Person(self.stack.url("api-gateway"), access, user, None, self._pool, row.phone, self.secrets)

    def visitor(self, url: str = "") -> Person:
        """Somebody without a token, at the gateway or at `url`."""
        return Person(url or self.stack.url("api-gateway"), pool=self._pool, secrets=self.secrets)

    def hang_up(self) -> None:
        """Let idle connections go: the gateway ends one after 75 seconds, and a call may be on its way over it then."""
        self._pool.clear()

    def env(self, service: str) -> dict[str, str]:
        """A service's environment."""
        return self.stack.env(service)

    def code(self, person: Person) -> str:
        """The newest code that was sent to a phone."""
        code = self.inbox.newest_code(person.phone)
        self.secrets.add(code)
        return code

    def pay_by_card(self, intent_id: str, card: str = "pm_card_visa") -> int:
        """What the payer's browser does with a PaymentIntent; the status that Stripe answers."""
        url = f"{self.stripe.url}/v1/payment_intents/{intent_id}/confirm"
        key = self.env("user-service")["STRIPE_SECRET_KEY"]
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-www-form-urlencoded"}
        return self._pool.request("POST", url, body=f"payment_method={card}".encode(), headers=headers).status

    # ── seats and tickets

    def seat(self) -> str:
        """A seat of event 2 (HALL-B) that is AVAILABLE."""
        return self._seats.take()

    def held(self, buyer: Person, seat: str | None = None) -> tuple[str, str]:
        """A seat that `buyer` has reserved, and the order's id."""
        seat = seat or self.seat()
        return seat, buyer.reserve(seat).must(200)["order_id"]

    def bought(self, buyer: Person, seat: str | None = None) -> tuple[str, str]:
        """A seat that `buyer` has reserved and paid for, and the order's id."""
        seat, order_id = self.held(buyer, seat)
        buyer.pay(order_id).must(200)
        return seat, order_id

    def tickets(self, owner: Person, number: int = 1) -> list[str]:
        """Seats that `owner` has bought before the test, written straight to the databases."""
        seats = [self.seat() for _ in range(number)]
        inserts.sales(self.connect, owner.user_id, seats)
        return seats

    def ticket(self, owner: Person) -> str:
        """One of those."""
        return self.tickets(owner)[0]

    def initiated(self, seller: Person, buyer: Person, seat: str, amount: Any = 100) -> str:
        """A transfer that waits for both codes."""
        answer = seller.initiate(seat, seller.user_id, buyer.user_id, amount)
        return str(answer.must(201)["transfer_id"])

    def transferred(self, seller: Person, buyer: Person, seat: str, amount: Any = 100) -> str:
        """A transfer that both parties have confirmed."""
        transfer_id = self.initiated(seller, buyer, seat, amount)
        codes = {"seller_otp": self.code(seller), "buyer_otp": self.code(buyer)}
        assert seller.confirm(transfer_id, **codes).must(200)["status"] == "COMPLETED"
        return transfer_id

    def disputed(self, seller: Person, buyer: Person, seat: str, amount: Any = 100) -> str:
        """A transfer that the buyer disputes."""
        transfer_id = self.transferred(seller, buyer, seat, amount)
        buyer.transfer("dispute", transfer_id, reason="not what was promised").must(200)
        return transfer_id

    # ── the state of the databases

    def connect(self, database: str) -> Any:
        """Open a superuser's connection in autocommit mode; the caller closes it."""
        return db.connect(self.stack, database)

    def rows(self, database: str, sql: str, *params: Any) -> list[dict[str, Any]]:
        """What a superuser's query finds."""
        return db.rows(self.stack, database, sql, *params)

    def seat_row(self, seat: str) -> dict[str, Any]:
        """A seat as Inventory has it."""
        return db.seat(self.stack, seat)

    def seat_status(self, seat: str) -> str:
        """AVAILABLE, HELD, SOLD or CHECKED_IN."""
        return str(self.seat_row(seat)["status"])

    def order_status(self, order_id: str) -> str:
        """PENDING, CONFIRMED, FAILED, REFUNDED, or `none`."""
        return db.order_status(self.stack, order_id)

    def transfer_row(self, transfer_id: str) -> dict[str, Any]:
        """A transfer as Order has it."""
        return self.rows("orders_db", "SELECT * FROM transfers WHERE transfer_id = %s", transfer_id)[0]

    def credits(self, person: Person) -> tuple[Any, Any]:
        """Spendable and frozen, as decimals."""
        row = self.rows("users_db", "SELECT * FROM users WHERE user_id = %s", person.user_id)[0]
        return row["credit_balance"], row["frozen_credits"]

    def log_lines(self, service: str, having: str = "") -> list[dict[str, Any]]:
        """The JSON lines of a service's log that contain `having`."""
        with self.stack.log_path(service).open(encoding="utf-8", errors="replace") as log:
            return [json.loads(line) for line in log if having in line and line.startswith("{")]

    def until(self, what: str, reached: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
        """Wait until `reached()` is true and return it. Raises AssertionError after `seconds`."""
        found: list[T] = []

        def look() -> bool:
            found[:] = [reached()]
            return bool(found[0])

        assert wait_for(look, seconds), f"after {seconds:.0f} s still not: {what} (last: {found[0]!r})"
        return found[0]

    def assert_invariants(self, seconds: float = 30.0) -> None:
        """Wait until the system is at rest and every invariant holds, or fail with what does not."""
        if not wait_for(lambda: not invariants.find_violations(self.connect), seconds):
            invariants.assert_hold(self.connect)

    @contextmanager
    def clock(self, database: str, ahead_seconds: int) -> Iterator[None]:
        """Within, app_now() of `database` is ahead."""
        shift = "UPDATE clock_offset SET shift = make_interval(secs => %s)"
        self.rows(database, shift, ahead_seconds)
        try:
            yield
        finally:
            self.rows(database, shift, 0)

    def healthy(self, services: Sequence[str] = SERVICES) -> bool:
        """Whether all of them answer 200 to /health."""
        return all(self.health(service).status == 200 for service in services)

    def health(self, service: str) -> urllib3.BaseHTTPResponse:
        """A service's /health; 599 when nothing answers."""
        try:
            return self._pool.request("GET", f"{self.stack.url(service)}/health", timeout=5)
        except urllib3.exceptions.HTTPError:
            return urllib3.HTTPResponse(status=599)
