"""Races of recovery and the journal.

the race                                                test
two orchestrators adopt one saga                        test_two_adopters_…, test_concurrent_adopters_…
the end write of a process that lost its lease          test_fenced_end_write_leaves_one_end_and_one_notice
a late begin write of a pay or a transfer               test_late_begin_of_a_finished_saga_begins_nothing
"""

from __future__ import annotations

from functools import partial
from uuid import uuid4

import pytest

from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import FLOWS
from tests.support.concurrency import run_concurrently
from tests.support.leases import beat_as_if_running

pytestmark = pytest.mark.saga

PIVOT = "inventory ConfirmSeat"


def test_two_adopters_of_a_saga_refund_once_and_end_it_once(engine: Engine) -> None:
    """The first adopter pauses before its refund. A second one adopts and ends the saga, then the first continues."""
    case = engine.prepare(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_BEFORE))
    engine.plan.meanwhile["recovery: user POST /credits/refund"] = lambda: engine.lose_lease(engine.rescuer)
    engine.recover()
    assert not engine.plan.meanwhile, "the refund of the first adopter was never reached"
    assert _read_journal(engine) == [("pay", "UNDONE", 3)], "two adoptions, and one end"
    assert (case.status(), case.balance("buyer")) == ("HELD", 1000)
    engine.assert_invariants(case)


def test_concurrent_adopters_get_one_saga_once(engine: Engine) -> None:
    case = engine.prepare(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_AFTER))
    journals = (engine.healthy.journal, engine.faulty.journal)
    for journal in journals:
        journal.instance_id = uuid4()
        beat_as_if_running(engine.healthy.db, journal)
    adopted = run_concurrently([partial(journal.adopt, 16) for journal in journals])
    assert sorted(map(len, adopted)) == [0, 1]
    for journal in journals:
        journal.resign()
    engine.recover()
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.assert_invariants(case)


def test_fenced_end_write_leaves_one_end_and_one_notice(engine: Engine) -> None:
    """The process loses its lease before its end write, and another process ends the saga. The late write is void."""
    case = engine.prepare(FLOWS["pay"])
    response = engine.request(FLOWS["pay"], case, meanwhile={"journal end": lambda: engine.lose_lease(engine.faulty)})
    assert response.status == 200, "the response comes from the end of the adopter"
    assert _read_journal(engine) == [("pay", "DONE", 2)]
    engine.recover()
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.assert_invariants(case)


def _read_journal(engine: Engine) -> list[tuple[str, str, int]]:
    return [(saga["flow"], saga["status"], saga["epoch"]) for saga in engine.system.sagas()]


@pytest.mark.parametrize(("flow", "buyer", "seat"), [("pay", 800, "SOLD"), ("confirm", 850, "SOLD")])
def test_late_begin_of_a_finished_saga_begins_nothing(engine: Engine, flow: str, buyer: int, seat: str) -> None:
    """The begin write hangs, and a retry of the client succeeds. Then the delayed begin write arrives."""
    case = engine.prepare(FLOWS[flow])
    response = engine.request(FLOWS[flow], case, Fault("journal begin", Kind.LATE_GIVES_UP))
    assert response.status == 503
    case.run(flow).must(200)
    engine.recover()
    assert [(status, epoch) for _, status, epoch in _read_journal(engine)] == [("DONE", 1)]
    assert (case.status(), case.balance("buyer")) == (seat, buyer)
    engine.assert_invariants(case)


@pytest.mark.claim("log/critical-level", "transfer/recovers-status-write")
def test_saga_that_keeps_failing_is_parked_with_its_details(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    case = engine.prepare(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_BEFORE))
    with case.system.dbs["orchestrator"].transaction() as tx:
        tx.run("UPDATE sagas SET park_after = clock_timestamp() - interval '1 second' WHERE status = 'RUNNING'")
    with case.system.dbs["user"].transaction() as tx:  # so that the undo of the charge cannot lock the row
        tx.only("SELECT 1 FROM users WHERE user_id = %(id)s FOR UPDATE", id=case.people["buyer"])
        case.system.recover_without_retries()
    [parked] = [saga for saga in case.system.parked_sagas() if saga["flow"] == "pay"]
    assert {line.levelname for line in caplog.records if line.getMessage().startswith("PARKED pay")} == {"CRITICAL"}
    assert parked["result"]["details"] == {
        "subject": case.ids["order_id"],
        "price": "200.00",
        "buyer_id": str(case.people["buyer"]),
        "seat_id": str(case.seat),
        "order_id": case.ids["order_id"],
    }
    assert case.run("pay").status == 503, "a parked saga keeps its subject"
    assert engine.system.admin().retry(parked["saga_id"], "an operator")
    engine.recover()
    assert case.balance("buyer") == 1000
    engine.assert_invariants(case)
