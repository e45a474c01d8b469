"""Where the demo plays: the running stack, its people, and a look into the databases beside every step."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import psycopg2.extras

from harness.client import Api, Inbox
from harness.runtime.stack import Stack

T = TypeVar("T")
WAIT_SECONDS = 30.0
LOOK_SECONDS = 0.1


class Stage:
    """Narrates, and shows seat, order and credits as the databases have them."""

    def __init__(self, stack: Stack, say: Callable[[str], None] = print) -> None:
        self.stack = stack
        self.say = say
        self.gateway = stack.url("api-gateway")
        self.inbox = Inbox(stack.url("fake-smu"))

    def someone(self, email: str) -> Api:
        """One of the seed's people, logged in through the gateway."""
        return Api(self.gateway).login(email)

    def scene(self, title: str) -> None:
        """A heading."""
        self.say(f"\n── {title}")

    def step(self, text: str, seat_id: str | None = None, order_id: str | None = None, *people: Api) -> None:
        """One line of what happened, one of how things stand."""
        self.say(f"   {text}")
        if standing := self.standing(seat_id, order_id, *people):
            self.say(f"       {standing}")

    def standing(self, seat_id: str | None, order_id: str | None, *people: Api) -> str:
        """Seat, order and credits, from the databases themselves."""
        parts = []
        if seat_id:
            seat = self.seat(seat_id)
            parts.append(f"seat {seat['row_number']}{seat['seat_number']} {seat['status']}")
        if order_id:
            parts.append(f"order {self.order_status(order_id)}")
        parts += [self._credits(person) for person in people]
        return " · ".join(parts)

    def seat(self, seat_id: str) -> dict[str, Any]:
        """A seat's row."""
        row = self.row("seats_db", "SELECT * FROM seats WHERE seat_id = %s", seat_id)
        return row or {}

    def order_status(self, order_id: str) -> str:
        """An order's status, or `none`."""
        row = self.row("orders_db", "SELECT status FROM orders WHERE order_id = %s", order_id)
        return str(row["status"]) if row else "none"

    def row(self, database: str, sql: str, *params: Any) -> dict[str, Any] | None:
        """The first row of a query, as superuser."""
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            found = cursor.fetchone()
            return dict(found) if found else None

    def connect(self, database: str) -> Any:
        """A superuser's connection in autocommit; the caller closes it."""
        connection = psycopg2.connect(
            self.stack.admin_dsn(database), cursor_factory=psycopg2.extras.RealDictCursor, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def until(self, what: str, reached: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
        """Wait until `reached()` is true and return it. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (found := reached()):
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds:.0f} s still not: {what}")
            time.sleep(LOOK_SECONDS)  # between two looks at a condition; bounded by the deadline
        return found

    def _credits(self, person: Api) -> str:
        sql = "SELECT email, credit_balance, frozen_credits FROM users WHERE user_id = %s"
        user = self.row("users_db", sql, person.user_id) or {}
        name = str(user["email"]).partition("@")[0]
        frozen = f" (+{user['frozen_credits']} frozen)" if user["frozen_credits"] else ""
        return f"{name} {user['credit_balance']}{frozen}"
