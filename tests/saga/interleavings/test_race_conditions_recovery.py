"""The cases that a reviewer asks for by name: what concerns the journal and whoever recovers. See `test_named.py`.

A reviewer's words                                      the test
two orchestrators adopting one saga                     test_two_orchestrators_adopting_one_saga_…, …_at_once_…
the end write fenced off                                test_end_write_fenced_off_…
a stale second begin of pay or swap                     test_stale_second_begin_…
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import uuid4

import pytest

from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import FLOWS

pytestmark = pytest.mark.saga

PIVOT = "inventory ConfirmSeat"


def test_two_orchestrators_adopting_one_saga_refund_once_and_end_it_once(engine: Engine) -> None:
    """The first adopter stands still before its refund; a second adopts and ends; then the first goes on."""
    case = engine.prepared(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_BEFORE))
    engine.script.meanwhile["recovery: user POST /credits/refund"] = lambda: engine.lose_lease(engine.rescuer)
    engine.settle()
    assert not engine.script.meanwhile, "it was never reached"
    assert _journal(engine) == [("pay", "UNDONE", 3)], "adopted twice, and the second's end is the end"
    assert (case.status(), case.balance("buyer")) == ("HELD", 1000)
    engine.hold_invariants(case)


def test_two_orchestrators_adopting_at_once_get_one_saga_between_them(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_AFTER))
    barrier, journals = Barrier(2), (engine.preparer.journal, engine.victim.journal)
    for journal in journals:
        journal.instance_id = uuid4()
        journal.beat()
    with ThreadPoolExecutor(2) as pool:
        adopted = list(pool.map(lambda journal: (barrier.wait(), journal.adopt(16))[1], journals))
    assert sorted(map(len, adopted)) == [0, 1]
    for journal in journals:
        journal.resign()
    engine.settle()
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.hold_invariants(case)


def test_end_write_fenced_off_by_an_adopter_leaves_one_end_and_one_notice(engine: Engine) -> None:
    """Everything is done when the process loses its lease; another adopts and ends; the first's end write is void."""
    case = engine.prepared(FLOWS["pay"])
    told = engine.act(FLOWS["pay"], case, meanwhile={"journal end": lambda: engine.lose_lease(engine.victim)})
    assert told is not None
    assert told.status == 200, "the adopter's end is the answer"
    assert _journal(engine) == [("pay", "DONE", 2)]
    engine.settle()
    assert (case.status(), case.balance("buyer")) == ("SOLD", 800)
    engine.hold_invariants(case)


def _journal(engine: Engine) -> list[tuple[str, str, int]]:
    return [(saga["flow"], saga["status"], saga["epoch"]) for saga in engine.system.sagas()]


@pytest.mark.parametrize(("flow", "buyer", "seat"), [("pay", 800, "SOLD"), ("confirm", 850, "SOLD")])
def test_stale_second_begin_of_what_is_done_begins_nothing(engine: Engine, flow: str, buyer: int, seat: str) -> None:
    """The begin write hangs, the client asks again and is answered; then the first begin arrives after all."""
    case = engine.prepared(FLOWS[flow])
    told = engine.act(FLOWS[flow], case, Fault("journal begin", Kind.LATE_GIVES_UP))
    assert told is not None
    assert told.status == 503
    case.run(flow).must(200)
    engine.settle()
    assert [(status, epoch) for _, status, epoch in _journal(engine)] == [("DONE", 1)]
    assert (case.status(), case.balance("buyer")) == (seat, buyer)
    engine.hold_invariants(case)


@pytest.mark.claim("log/critical-level", "transfer/recovers-status-write")
def test_saga_that_keeps_failing_is_parked_with_what_is_at_stake(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    case = engine.prepared(FLOWS["pay"])
    engine.act(FLOWS["pay"], case, Fault(PIVOT, Kind.DIES_BEFORE))
    with case.system.dbs["orchestrator"].transaction() as tx:
        tx.run("UPDATE sagas SET park_after = clock_timestamp() - interval '1 second' WHERE status = 'RUNNING'")
    with case.system.dbs["user"].transaction() as tx:  # the undo of the charge cannot get at the row
        tx.only("SELECT 1 FROM users WHERE user_id = %(id)s FOR UPDATE", id=case.people["buyer"])
        case.system.impatient_rescue()
    [parked] = [saga for saga in case.system.parked() if saga["flow"] == "pay"]
    assert {line.levelname for line in caplog.records if line.getMessage().startswith("PARKED pay")} == {"CRITICAL"}
    assert parked["result"]["details"] == {
        "subject": case.ids["order_id"],
        "price": "200.00",
        "buyer_id": str(case.people["buyer"]),
        "seat_id": str(case.seat),
        "order_id": case.ids["order_id"],
    }
    assert case.run("pay").status == 503, "a parked saga keeps its subject"
    assert engine.system.admin().retry(parked["saga_id"])
    engine.settle()
    assert case.balance("buyer") == 1000
    engine.hold_invariants(case)
