"""The load: clients that make visit after visit, each with a random generator of its own."""

from __future__ import annotations

import threading
import traceback
from contextlib import closing
from decimal import Decimal
from queue import Queue
from random import Random

import urllib3

from tests.chaos.client import Book, Client, Unanswered
from tests.chaos.stack import ChaosStack
from tests.chaos.visits import HALL, Town, Visit
from tests.support import inserts

PEOPLE = 240
FLAGGED = 10  # every tenth customer needs a code to pay
HOT_SEATS = 12
SEATS_PER_SECOND = 40
OPENING = Decimal(10_000)
STOP_SECONDS = 60.0


def settle_town(stack: ChaosStack, book: Book, seconds: float) -> tuple[Town, str]:
    """Insert the event, its seats and the people. Returns the town and the id of the event."""
    event, seats = stack.system.insert_event(HOT_SEATS + int(SEATS_PER_SECOND * max(seconds, 60)), hall=HALL)
    stack.system.set_limits(0, 0, event)
    pool = urllib3.PoolManager(maxsize=64, retries=False)
    url = stack.stack.url("api-gateway")

    def client(row: inserts.User) -> Client:
        user = {"user_id": row.user_id, "email": row.email, "role": row.role}
        return Client(url, user=user, pool=pool, book=book, phone=row.phone)

    rows = [inserts.User(credits=OPENING, is_flagged=number % FLAGGED == 0) for number in range(PEOPLE)]
    staff = inserts.User("staff", Decimal(0))
    with closing(stack.system.connect("users_db")) as users:
        inserts.users(users, [*rows, staff])
    town = Town(stack.system, book.ledger, client(staff), Queue(), seats[:HOT_SEATS])
    for seat in seats[HOT_SEATS:]:
        town.seats.put(seat)
    for row in rows:
        town.customers.put(client(row))
        book.ledger.opening[row.user_id] = row.credits
    return town, event


class Load:
    """The clients of a run. Each visit ends before the load stops."""

    def __init__(self, town: Town, seed: int, clients: int, pause_seconds: float) -> None:
        self._town, self._ledger, self._pause_seconds = town, town.ledger, pause_seconds
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(Random(f"{seed} {n}"),), name=f"client-{n}")
            for n in range(clients)
        ]

    def start(self) -> None:
        """Start all clients."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each visit end, and wait for that."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(STOP_SECONDS)
            if thread.is_alive():
                self._ledger.crashes.append(f"{thread.name} did not end")

    def _visit(self, rng: Random) -> None:
        while not self._is_over.wait(self._pause_seconds):
            try:
                Visit(self._town, rng).run()
            except Unanswered:
                pass  # the ledger has the request
            except Exception:  # a client that does not understand an answer is a finding
                self._ledger.crashes.append(traceback.format_exc(limit=-3))
