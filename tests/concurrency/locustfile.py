"""A contended sale for locust: buyers, sellers, gate staff, and stampedes for one seat.

    make locust                                   the system, the locust web UI and the dashboard
    TR_RUN_DIR=… locust -f tests/concurrency/locustfile.py --headless --lasts 30

The exit status is 1 if an invariant is broken at the end.
"""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
from locust import LoadTestShape, User, between, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from tests.concurrency.load_users import Sale
from tests.support.inserts import EVENT
from tests.support.people import Person

HALL = "HALL-B"
TOKEN_SECONDS = 600.0  # after this time a user changes its customer, because tokens expire after 900 s
TRANSFERS_EACH = 4  # because a phone number gets at most five codes in ten minutes


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("the sale")
    group.add_argument("--calm", type=int, default=20, help="number of users between stampedes")
    group.add_argument("--stampede", type=int, default=60, help="number of further users in a stampede for one seat")
    group.add_argument("--every", type=int, default=20, help="seconds from one stampede to the next")
    group.add_argument("--rush", type=int, default=6, help="seconds of a stampede")
    group.add_argument("--lasts", type=int, default=0, help="seconds of the sale (0: until it is stopped)")


@events.init.add_listener
def _begin(environment: Environment, **_: Any) -> None:
    Customer.sale = Sale(environment)
    environment.host = Customer.sale.system.stack.url("api-gateway")  # shown by the web UI


@events.quitting.add_listener
def _check(environment: Environment, **_: Any) -> None:
    Customer.violations = Customer.sale.find_violations()
    environment.process_exit_code = int(bool(Customer.violations))


@events.quit.add_listener
def _print_verdict(**_: Any) -> None:
    """Print the verdict below locust's tables."""
    print(dict(Customer.sale.counts))
    for violation in Customer.violations:
        print(f"BROKEN  {violation}")
    broken = len(Customer.violations)
    print(f"{broken} invariants are broken" if broken else "every invariant holds", flush=True)


class Stampedes(LoadTestShape):  # type: ignore[misc]  # locust is untyped here
    """A calm sale with regular stampedes."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """Return the number of users, their spawn rate per second and their classes, or None to stop."""
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        seconds = self.get_run_time()
        if options.lasts and seconds > options.lasts:
            return None
        if seconds % options.every < options.every - options.rush:
            return options.calm, 20, CALM
        return options.calm + options.stampede, 500, [Stampeder]


class Customer(User):  # type: ignore[misc]
    """A locust user with an account."""

    abstract = True
    sale: Sale
    violations: list[str]
    wait_time = between(0.1, 0.6)
    _me: Person | None = None
    _since = 0.0

    @property
    def me(self) -> Person:
        """The account that this user has now."""
        if self._me is None or time.monotonic() - self._since > TOKEN_SECONDS:
            self._me, self._since = self.sale.take_customer(), time.monotonic()
        return self._me

    def buy(self, seat: str) -> str | None:
        """Reserve and pay. Returns the order id, or None if another user has the seat or the payment failed."""
        response = self.me.reserve(seat)
        if response.status != 200:
            self.sale.counts["lost"] += 1
            return None
        self.sale.counts["held"] += 1
        order = str(response.data["order_id"])
        return order if self.sale.pay(self.me, order) else None


class Buyer(Customer):
    """Browses, reserves and pays, or abandons a hold."""

    weight = 6

    @task(1)
    def browse(self) -> None:
        """Read the list of events and one event."""
        self.me.get("/api/events")
        self.me.get(f"/api/events/{EVENT}")

    @task(6)
    def buy_ticket(self) -> None:
        """Try to buy a ticket."""
        seat = self.sale.pick_seat()
        if order := self.buy(seat):
            self.sale.tickets.append((self.me, seat, order))

    @task(1)
    def abandon(self) -> None:
        """Reserve a seat and let the hold expire."""
        if self.me.reserve(self.sale.pick_seat()).status == 200:
            self.sale.counts["abandoned"] += 1


class Seller(Customer):
    """Buys a ticket and transfers it. Both parties enter their codes in one request or in two."""

    weight = 2
    _sold = 0

    def on_start(self) -> None:
        """Choose the buyer of the transfers."""
        self._friend = self.sale.take_customer()

    @task
    def transfer_ticket(self) -> None:
        """Buy a ticket and transfer it to the friend."""
        if self._sold == TRANSFERS_EACH:
            self._me, self._friend, self._sold = None, self.sale.take_customer(), 0
        seat = self.sale.pick_seat()
        if self.buy(seat) is None:
            return
        self._sold += 1
        response = self.me.initiate(seat, self.me.user_id, self._friend.user_id, 50)
        if response.status == 201:
            self._confirm(str(response.data["transfer_id"]))

    def _confirm(self, transfer: str) -> None:
        codes = {"seller_otp": self.sale.system.code(self.me), "buyer_otp": self.sale.system.code(self._friend)}
        if random.random() < 0.5:
            self.me.confirm(transfer, seller_otp=codes.pop("seller_otp"))
        response = self._friend.confirm(transfer, **codes)
        self.sale.counts["transferred"] += response.status == 200 and response.data["status"] == "COMPLETED"


class Staff(Customer):
    """Scans each ticket at two gates at the same time, and refunds tickets."""

    weight = 1

    def on_start(self) -> None:
        """Create the staff of both gates."""
        self._gates = self.sale.system.staff(), self.sale.system.staff()

    @task(3)
    def scan(self) -> None:
        """Scan a ticket at both gates at the same time."""
        if not self.sale.tickets:
            return
        owner, seat, _ = self.sale.tickets.popleft()
        payload = owner.qr(seat).must(200)["qr_payload"]
        scans = [gevent.spawn(gate.scan, payload, HALL) for gate in self._gates]
        results = [scan.get().data["result"] for scan in scans if scan.get().status == 200]
        self.sale.counts["admitted"] += results.count("SUCCESS")
        self.sale.counts["admitted twice"] += results.count("SUCCESS") > 1

    @task(2)
    def refund(self) -> None:
        """Refund a ticket, which makes its seat available again."""
        if self.sale.tickets:
            _, seat, order = self.sale.tickets.popleft()
            if self._gates[0].refund(order).status == 200:
                self.sale.add_refunded_seat(seat)


class Stampeder(Customer):
    """Tries again and again to reserve the current hot seat."""

    wait_time = constant(0.05)

    @task
    def rush(self) -> None:
        """Reserve the hot seat. One user wins it."""
        hot_seat = self.sale.hot_seat
        if hot_seat is None:
            return
        response = self.me.reserve(hot_seat.seat)
        if response.status != 200:
            self.sale.counts["lost the stampede"] += 1
            return
        self.sale.record_win(hot_seat)
        order = str(response.data["order_id"])
        if self.sale.pay(self.me, order):
            self.sale.tickets.append((self.me, hot_seat.seat, order))


CALM: list[type[User]] = [Buyer, Seller, Staff]
