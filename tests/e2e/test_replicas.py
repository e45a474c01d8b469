"""Two orchestrators and two inventories: one is late, one of each is killed, and the others end what it had begun."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any
from uuid import uuid4

import psutil
import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from harness.api_client import ApiResponse
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

INVENTORY, ORCHESTRATOR = "inventory-service", "orchestrator-service"
BUYERS = 4
ENDED_SECONDS = 10.0  # an orchestrator's lease, and another's look at what it left
RECOVERED_SECONDS = 30.0


@dataclass
class Load:
    """People who buy, one purchase after the other; whoever finds a door shut takes the other one."""

    doors: list[str]
    statuses: list[int] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def buy(self, system: TestSystem, first: int) -> None:
        """What one of them does until it is over."""
        buyer, doors = system.person("100000.00"), cycle(self.doors[first:] + self.doors[:first])
        buyer.url = next(doors)
        while not self.over.is_set():
            try:
                self._purchase(system, buyer)
            except urllib3.exceptions.HTTPError:
                buyer.url = next(doors)
            self.over.wait(0.1)  # between two purchases, as people do

    def _purchase(self, system: TestSystem, buyer: Person) -> None:
        held = buyer.reserve(system.seat())
        self.statuses.append(held.status)
        if held.status == 200:
            self.statuses.append(buyer.pay(held.data["order_id"]).status)


@contextmanager
def load(system: TestSystem, *doors: str) -> Iterator[Load]:
    """The load, while it is on."""
    running = Load(list(doors))
    buyers = [threading.Thread(target=running.buy, args=(system, n % len(doors))) for n in range(BUYERS)]
    for buyer in buyers:
        buyer.start()
    try:
        yield running
    finally:
        running.over.set()
        for buyer in buyers:
            buyer.join()


@pytest.fixture(scope="module")
def twins(system: TestSystem) -> Iterator[tuple[str, str]]:
    """A second inventory and a second orchestrator, while every orchestrator knows both inventories."""
    inventory = system.stack.start_replica(INVENTORY)
    both = {"INVENTORY_SERVICE_URL": system.stack.peers(INVENTORY, 50051)}
    system.stack.restart(ORCHESTRATOR, both)
    orchestrator = system.stack.start_replica(ORCHESTRATOR, both)
    yield inventory, orchestrator
    system.stack.start(INVENTORY)
    system.stack.restart(ORCHESTRATOR, {})
    for name in (orchestrator, inventory):
        system.stack.stop(name)


def holds(system: TestSystem, inventory: str) -> float:
    """How many seats one inventory has held since it was started."""
    text = system.visitor(system.stack.url(inventory)).get("/metrics").body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "inventory_holds_total")


def knows_of_ended_logins(system: TestSystem, url: str) -> bool:
    """Whether an orchestrator would move money: until then it answers 503 (D31)."""
    buyer = system.person("0.00")
    buyer.url = url
    return buyer.post("/api/pay", {}).status == 400


def stuck(system: TestSystem, buyer: Person, order_id: str, blocker: Any) -> threading.Thread:
    """A pay that has charged and waits for its order, which `blocker` holds until it rolls back."""
    charged = "SELECT 1 FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'"
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (order_id,))
    paying = threading.Thread(target=pay_and_lose_the_answer, args=(buyer, order_id))
    paying.start()
    system.wait_until("the charge is on the ledger", lambda: system.rows("users_db", charged, buyer.user_id))
    return paying


def pay_and_lose_the_answer(buyer: Person, order_id: str) -> None:
    """A pay whose answer never comes, or is a 5xx: the orchestrator dies under it."""
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        assert buyer.pay(order_id).status >= 500


@contextmanager
def frozen(system: TestSystem, name: str) -> Iterator[None]:
    """Within, no process of `name` runs: alive, with all its connections, and late."""
    leader = psutil.Process(system.stack.run_dir.read_record(name).pid)
    processes = [leader, *leader.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_a_frozen_orchestrator_that_wakes_changes_nothing_under_a_key_that_went_to_another(
    system: TestSystem, twins: tuple[str, str]
) -> None:
    awake, late = (system.stack.url(name) for name in (ORCHESTRATOR, twins[1]))  # a gateway may know both
    seller, buyer, key = system.person(), system.person(), {"Idempotency-Key": str(uuid4())}
    body = {"seller_user_id": seller.user_id, "buyer_user_id": buyer.user_id, "credits_amount": 5}
    body["seat_id"] = system.insert_ticket(seller)
    system.wait_until(
        "both move money", lambda: all(knows_of_ended_logins(system, d) for d in (awake, late)), RECOVERED_SECONDS
    )

    def ask(url: str = awake) -> ApiResponse:
        return Person(url, seller.token, seller.user, pool=seller.pool).post("/api/transfer/initiate", body, **key)

    with ThreadPoolExecutor(1) as pool:
        with contextlib.ExitStack() as asleep:
            with system.smu.fault("hang", "/SendOTP", effect=False):
                first = pool.submit(ask, late)
                system.wait_until("its transfer waits for SMU", lambda: system.smu.read("faults")["faults"][0]["fired"])
                asleep.enter_context(frozen(system, twins[1]))
            system.wait_until(
                "the other has undone it", lambda: outcomes([ask()]) == {"500 INTERNAL_ERROR": 1}, ENDED_SECONDS
            )
            begun_anew = ask()
        assert (first.result().status, first.result().data) == (201, begun_anew.must(201))
    assert ask().must(201) == begun_anew.data
    sql = "SELECT status::text FROM transfers WHERE seat_id = %s"
    assert sorted(row["status"] for row in system.rows("orders_db", sql, body["seat_id"])) == ["FAILED", "PENDING_OTP"]


def test_one_of_each_is_killed_under_load_and_the_others_end_what_it_began(
    system: TestSystem, twins: tuple[str, str]
) -> None:
    second_inventory, second_orchestrator = twins
    doors = [system.stack.url(ORCHESTRATOR), system.stack.url(second_orchestrator)]
    for door in doors:
        system.wait_until(
            "an orchestrator moves money", partial(knows_of_ended_logins, system, door), RECOVERED_SECONDS
        )
    victim = system.person("1000.00")
    victim.url = doors[1]
    _, order_id = system.hold_seat(victim)
    with load(system, *doors) as running, closing(system.connect("orders_db")) as blocker:
        system.wait_until(
            "both inventories hold seats", lambda: all(holds(system, n) > BUYERS for n in (INVENTORY, second_inventory))
        )
        paying = stuck(system, victim, order_id, blocker)
        system.stack.kill(second_orchestrator)
        system.stack.kill(INVENTORY)
        blocker.rollback()
        alone, bought = holds(system, second_inventory), len(running.statuses)
        ended = "SELECT status::text FROM sagas WHERE flow = 'pay' AND subject = %s AND status <> 'RUNNING'"
        system.wait_until(
            "the other has ended the pay", lambda: system.rows("sagas_db", ended, order_id), ENDED_SECONDS
        )
        system.wait_until("people buy on", lambda: running.statuses[bought:].count(200) > 4 * BUYERS, RECOVERED_SECONDS)
        assert holds(system, second_inventory) > alone + BUYERS
    paying.join()
    victim.url = doors[0]
    assert set(running.statuses) <= {200, 409, 500, 503}, "an answer in the envelope, whatever happened"
    assert (system.order_status(order_id), victim.balance()) == ("FAILED", 1000), "charged, never confirmed: undone"
    system.assert_invariants()
