"""Purchases that run while a test stops, kills or freezes a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import cycle

import psutil
import urllib3

from harness.api_client import ApiResponse
from tests.support.people import Person
from tests.support.system import TestSystem

BUYERS = 4
PAUSE_SECONDS = 0.25  # between two purchases of a buyer
NO_ANSWER = 599  # stands for a connection that failed


def buy(buyer: Person, seat: str) -> list[int]:
    """Reserve a seat and pay for it. Return the statuses of both calls, or of the failed reserve alone."""
    held = buyer.reserve(seat)
    return [held.status] if held.status != 200 else [held.status, buyer.pay(held.data["order_id"]).status]


@contextmanager
def keep_buying(system: TestSystem, *urls: str) -> Iterator[list[int]]:
    """Let buyers purchase seat after seat during the block. Yield the growing list of the statuses that they get.

    The buyers call the gateway, or `urls`. A buyer whose connection fails continues at the next address.
    """
    addresses, statuses, over = urls or (system.stack.url("api-gateway"),), list[int](), threading.Event()

    def purchase(first: int) -> None:
        buyer, rotation = system.person("100000.00"), cycle(addresses[first:] + addresses[:first])
        buyer.url = next(rotation)
        while not over.is_set():
            try:
                statuses.extend(buy(buyer, system.seat()))
            except urllib3.exceptions.HTTPError:
                buyer.url = next(rotation)
                statuses.append(NO_ANSWER)
            over.wait(PAUSE_SECONDS)

    threads = [threading.Thread(target=purchase, args=(n % len(addresses),)) for n in range(BUYERS)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def block_pay_after_charge(system: TestSystem, buyer: Person, order_id: str) -> Iterator[threading.Thread]:
    """Start a pay on a thread and stop it between charge and confirmation, until the block ends.

    The row of the order is locked during the block. The caller kills the orchestrator in the block, so that the pay
    fails, and joins the thread.
    """
    charged = "SELECT 1 FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'"
    with closing(system.connect("orders_db")) as blocker, blocker.cursor() as cursor:
        blocker.autocommit = False
        cursor.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (order_id,))
        paying = threading.Thread(target=_fail_to_pay, args=(buyer, order_id))
        paying.start()
        system.wait_until("the charge is on the ledger", lambda: system.rows("users_db", charged, buyer.user_id))
        yield paying
        blocker.rollback()


@contextmanager
def freeze(system: TestSystem, name: str) -> Iterator[None]:
    """Suspend the processes of `name` during the block. Their connections stay open."""
    leader = psutil.Process(system.stack.run_dir.read_record(name).pid)
    processes = [leader, *leader.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


class Timed:
    """Makes calls and keeps the seconds that each took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, call: Callable[..., ApiResponse], *arguments: object) -> ApiResponse:
        """Make one call and return its answer."""
        started = time.monotonic()
        answer = call(*arguments)
        self.seconds.append(time.monotonic() - started)
        return answer


def _fail_to_pay(buyer: Person, order_id: str) -> None:
    with suppress(urllib3.exceptions.HTTPError):  # the connection may end with the orchestrator
        assert buyer.pay(order_id).status >= 500
