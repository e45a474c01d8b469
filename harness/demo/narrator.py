"""Print the demo's steps, each with the state of seat, order and credits from the databases."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from harness import db
from harness.api_client import NEW_PASSWORD, PASSWORD, Api, Inbox
from harness.runtime.stack import Stack

T = TypeVar("T")
WAIT_SECONDS = 30.0
POLL_SECONDS = 0.1


class Narrator:
    """Prints each step of a scene. Gives the scenes the stack, its databases and its seed users."""

    def __init__(self, stack: Stack, say: Callable[[str], None] = print) -> None:
        self.stack = stack
        self.say = say
        self.gateway = stack.url("api-gateway")
        self.inbox = Inbox(stack.url("fake-smu"))

    def log_in(self, email: str) -> Api:
        """Log a user of the demo in through the gateway. The staff account has the password of this stack."""
        staff_password = self.stack.env("user-service")["STAFF_PASSWORD"]
        passwords = {"staff@example.com": staff_password, "topped-up@example.com": NEW_PASSWORD}
        return Api(self.gateway).login(email, passwords.get(email, PASSWORD))

    def scene(self, title: str) -> None:
        """Print a heading."""
        self.say(f"\n── {title}")

    def step(self, text: str, seat_id: str | None = None, order_id: str | None = None, *people: Api) -> None:
        """Print what happened, and on a second line the state of the given seat, order and people."""
        self.say(f"   {text}")
        if state := self._describe_state(seat_id, order_id, *people):
            self.say(f"       {state}")

    def connect(self, database: str) -> Any:
        """Open a superuser's connection (`harness.db.connect`)."""
        return db.connect(self.stack, database)

    def wait_until(self, what: str, is_reached: Callable[[], T], seconds: float = WAIT_SECONDS) -> T:
        """Poll until `is_reached()` is true and return its value. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (found := is_reached()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not reached within {seconds:.0f} s: {what}")
            time.sleep(POLL_SECONDS)  # poll again, at most until the deadline
        return found

    def _describe_state(self, seat_id: str | None, order_id: str | None, *people: Api) -> str:
        parts = []
        if seat_id:
            seat = db.seat(self.stack, seat_id)
            parts.append(f"seat {seat['row_number']}{seat['seat_number']} {seat['status']}")
        if order_id:
            parts.append(f"order {db.order_status(self.stack, order_id)}")
        parts += [self._describe_credits(person) for person in people]
        return " · ".join(parts)

    def _describe_credits(self, person: Api) -> str:
        sql = "SELECT email, credit_balance, frozen_credits FROM users WHERE user_id = %s"
        user = db.row(self.stack, "users_db", sql, person.user_id) or {}
        name = str(user["email"]).partition("@")[0]
        frozen = f" (+{user['frozen_credits']} frozen)" if user["frozen_credits"] else ""
        return f"{name} {user['credit_balance']}{frozen}"
