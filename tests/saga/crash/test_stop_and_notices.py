"""A clean stop finishes all requests. Notices and hold messages survive the crash of their sender."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import urllib3

from harness import invariants
from tests.saga.crash.actors import Actors
from tests.saga.crash.crash_system import CrashTestSystem
from tests.support import queue_admin
from tests.support.people import Person
from tests.support.waiting import wait_until

pytestmark = pytest.mark.saga


def test_stopped_orchestrator_finishes_its_requests(system: CrashTestSystem) -> None:
    """SIGTERM under load: every response that a client got is true, and no saga is left for recovery."""
    responses: list[tuple[str, str]] = []  # order and its status in the response

    def buy_repeatedly(person: Person) -> None:
        with suppress(urllib3.exceptions.HTTPError):  # until the process refuses connections
            while True:
                order_id = person.reserve(system.seat("CAT3")).must(200)["order_id"]
                responses.append((order_id, "PENDING"))
                person.pay(order_id).must(200)
                responses.append((order_id, "CONFIRMED"))

    people = [system.person(90_000) for _ in range(8)]
    with system.killable_orchestrators({}) as (orchestrator,), ThreadPoolExecutor(len(people)) as pool:
        clients = [pool.submit(buy_repeatedly, person.at(orchestrator.url)) for person in people]
        wait_until(lambda: len(responses) >= 20)
        os.kill(orchestrator.pid, signal.SIGTERM)
        assert orchestrator.await_exit(15)[0] == 0
        assert system.count_running_sagas() == 0
    for client in clients:
        client.result()
    assert system.read_saga_ends(people) == {("DONE", 1)}
    rows = system.run("orders_db", "SELECT order_id::text AS id, status FROM orders")
    statuses = {row["id"]: row["status"] for row in rows}
    for order_id, status in responses:
        assert statuses[order_id] in (status, "CONFIRMED")
    invariants.assert_hold(system.connect)


@pytest.mark.parametrize(
    ("fault", "count"),
    [
        pytest.param({"kind": "late"}, 2, id="late-2"),  # SMU has sent the e-mail before the crash
        pytest.param({"kind": "hang", "effect": False}, 1, id="hang-1"),
    ],
)
def test_notice_survives_a_crash_of_its_sender(fault: dict[str, Any], count: int, system: CrashTestSystem) -> None:
    """The process dies during the call to SMU. The notice is sent again, so it arrives once or twice."""
    actors = Actors(system)
    actors.hold_seat()
    email: dict[str, Any] = {
        "path": "*/SendEmail",
        "where": {"emailAddress": actors.seller.email},
        "ms": 1000,
        "count": 1,
    }
    with system.without_rescuer(), system.killable_orchestrators({}) as (orchestrator,):
        with system.smu.fault(**fault, **email):
            actors.request_pay(orchestrator.url).must(200)
            wait_until(lambda: any(known["fired"] for known in system.smu.read("faults")["faults"]), 5)
            os.killpg(orchestrator.pid, signal.SIGKILL)
        saga_id = actors.read_sagas("pay")[-1]["saga_id"]
        assert not actors.has_all_notices(saga_id)
    wait_until(lambda: actors.has_all_notices(saga_id), 5)
    assert actors.count_notices(actors.seller, "booking_confirmed") == count


@pytest.mark.claim("reserve/publishes-hold-message", "queue/releases-despite-crash")
def test_every_hold_has_its_message(system: CrashTestSystem) -> None:
    """I9 for the crash tests: the message of each hold is in a queue or was delivered."""
    actors = Actors(system)
    actors.hold_seat()
    holds = system.run("sagas_db", "SELECT subject::text AS id FROM sagas WHERE flow = 'reserve' AND status = 'DONE'")
    delivered = system.run("seats_db", "SELECT message_id FROM release_messages")
    queued = system.message_ids(queue_admin.HOLD) | system.message_ids(queue_admin.PARKING)
    assert {row["id"] for row in holds} <= queued | {row["message_id"] for row in delivered}
