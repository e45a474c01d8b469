"""A contended sale: buyers, sellers with their buyers, gate staff, and a stampede for one seat now and then.

    make locust                                   the system, locust's web UI, and the hall live beside it
    TR_RUN_DIR=… locust -f tests/concurrency/locustfile.py --headless --lasts 30

Whatever the load was, the exit status is that of the invariants at its end.
"""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
from locust import LoadTestShape, User, between, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from tests.concurrency.load_users import Crowd
from tests.support.inserts import EVENT
from tests.support.people import Person

HALL = "HALL-B"
TOKEN_SECONDS = 600.0  # then a user is somebody else: tokens live for 900 s
TRANSFERS_EACH = 4  # a phone gets five codes in ten minutes


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("the sale")
    group.add_argument("--calm", type=int, default=20, help="users who come and go as in any sale")
    group.add_argument("--stampede", type=int, default=60, help="users who all want one seat, now and then")
    group.add_argument("--every", type=int, default=20, help="seconds from one stampede to the next")
    group.add_argument("--rush", type=int, default=6, help="seconds that a stampede lasts")
    group.add_argument("--lasts", type=int, default=0, help="seconds until all go home (0: until they are sent)")


@events.init.add_listener
def _open(environment: Environment, **_: Any) -> None:
    Visitor.crowd = Crowd(environment)


@events.quitting.add_listener
def _judge(environment: Environment, **_: Any) -> None:
    broken = Visitor.crowd.judge()
    for line in broken:
        print(f"BROKEN  {line}")
    print(f"{dict(Visitor.crowd.tally)}\n{'NOT everything' if broken else 'every invariant'} holds")
    environment.process_exit_code = int(bool(broken))


class Waves(LoadTestShape):  # type: ignore[misc]  # locust is untyped here
    """A calm sale, and stampedes into it."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """How many users there are to be now, how fast they come, and of which kinds."""
        assert self.runner is not None
        given: Any = self.runner.environment.parsed_options
        at = self.get_run_time()
        if given.lasts and at > given.lasts:
            return None
        if at % given.every < given.every - given.rush:
            return given.calm, 20, CALM
        return given.calm + given.stampede, 500, [Stampeder]


class Visitor(User):  # type: ignore[misc]
    """Somebody with an account."""

    abstract = True
    crowd: Crowd
    wait_time = between(0.1, 0.6)
    _me: Person | None = None
    _since = 0.0

    @property
    def me(self) -> Person:
        """Who this user is at present."""
        if self._me is None or time.monotonic() - self._since > TOKEN_SECONDS:
            self._me, self._since = self.crowd.somebody(), time.monotonic()
        return self._me

    def buy(self, seat: str) -> str | None:
        """Reserve and pay; the order's id, or None when somebody was faster."""
        answer = self.me.reserve(seat)
        if answer.status != 200:
            self.crowd.tally["lost"] += 1
            return None
        self.crowd.tally["held"] += 1
        order = str(answer.data["order_id"])
        return order if self.crowd.bought(self.me, order) else None


class Buyer(Visitor):
    """Browses, reserves, pays; or does not come back."""

    weight = 6

    @task(1)
    def browse(self) -> None:
        """The list, and a seat map."""
        self.me.get("/api/events")
        self.me.get(f"/api/events/{EVENT}")

    @task(6)
    def take_a_seat(self) -> None:
        """A ticket, if nobody was faster."""
        seat = self.crowd.popular()
        if order := self.buy(seat):
            self.crowd.tickets.append((self.me, seat, order))

    @task(1)
    def abandon(self) -> None:
        """A hold that lapses."""
        if self.me.reserve(self.crowd.popular()).status == 200:
            self.crowd.tally["abandoned"] += 1


class Seller(Visitor):
    """Buys, and sells on to somebody; both enter the codes that they were sent, together or one after the other."""

    weight = 2
    _sold = 0

    def on_start(self) -> None:
        """Find somebody to sell to."""
        self._friend = self.crowd.somebody()

    @task
    def sell_on(self) -> None:
        """One ticket, from the hall to the friend."""
        if self._sold == TRANSFERS_EACH:
            self._me, self._friend, self._sold = None, self.crowd.somebody(), 0
        seat = self.crowd.popular()
        if self.buy(seat) is None:
            return
        self._sold += 1
        answer = self.me.initiate(seat, self.me.user_id, self._friend.user_id, 50)
        if answer.status == 201:
            self._confirm(str(answer.data["transfer_id"]))

    def _confirm(self, transfer: str) -> None:
        codes = {"seller_otp": self.crowd.system.code(self.me), "buyer_otp": self.crowd.system.code(self._friend)}
        if random.random() < 0.5:
            self.me.confirm(transfer, seller_otp=codes.pop("seller_otp"))
        done = self._friend.confirm(transfer, **codes)
        self.crowd.tally["transferred"] += done.status == 200 and done.data["status"] == "COMPLETED"


class Staff(Visitor):
    """At two gates, where a ticket is shown at the same moment; and at the counter, where some are taken back."""

    weight = 1

    def on_start(self) -> None:
        """Two gates and a counter."""
        self._gates = self.crowd.system.staff(), self.crowd.system.staff()

    @task(3)
    def scan(self) -> None:
        """A ticket at both gates at the same moment."""
        if not self.crowd.tickets:
            return
        owner, seat, _ = self.crowd.tickets.popleft()
        payload = owner.qr(seat).must(200)["qr_payload"]
        scans = [gevent.spawn(gate.scan, payload, HALL) for gate in self._gates]
        results = [scan.get().data["result"] for scan in scans if scan.get().status == 200]
        self.crowd.tally["admitted"] += results.count("SUCCESS")
        self.crowd.tally["admitted twice"] += results.count("SUCCESS") > 1

    @task(2)
    def take_back(self) -> None:
        """A refund: its seat is free again."""
        if self.crowd.tickets:
            _, seat, order = self.crowd.tickets.popleft()
            if self._gates[0].refund(order).status == 200:
                self.crowd.came_free(seat)


class Stampeder(Visitor):
    """Wants the one seat that everybody wants, at once and again."""

    wait_time = constant(0.05)

    @task
    def rush(self) -> None:
        """One winner, and as many losers as there are others."""
        hot = self.crowd.hot
        if hot is None:
            return
        answer = self.me.reserve(hot.seat)
        if answer.status != 200:
            self.crowd.tally["lost the stampede"] += 1
            return
        self.crowd.won(hot)
        order = str(answer.data["order_id"])
        if self.crowd.bought(self.me, order):
            self.crowd.tickets.append((self.me, hot.seat, order))


CALM: list[type[User]] = [Buyer, Seller, Staff]
