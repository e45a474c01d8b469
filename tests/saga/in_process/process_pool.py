"""Many executions on all cores: each worker process has a system of its own (database server, services, orchestrators).

One more process runs the cells of the broker, against the session's RabbitMQ: what is in the queues is its alone.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from services.chassis.settings import BrokerSettings
from tests.saga.in_process.engine import Engine, Outcome, quick_motion
from tests.saga.in_process.faults import RECOVERY, Fault, Kind
from tests.saga.in_process.hold_messages import WakeUps
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.saga.in_process.scenarios import FLOWS
from tests.saga.matrix.expected_outcomes import ENDS, is_journal_of
from tests.saga.matrix.verify_outcome import SECONDS, Cell, Result
from tests.support.databases import Databases

Item = TypeVar("Item")
Came = TypeVar("Came")

BROKER = "broker publish"
LOOK = RECOVERY + "order GET /transfers"  # for swaps to take up: at the end of every recovery, whatever is left to do
GATE = {
    "order GET /orders": "order",
    "inventory VerifyTicket": "seat",
    "event GET /events/{id}": "seat",
}  # its branches
_engine: Engine | None = None


@dataclass(frozen=True)
class Unit:
    """One cell; `paired`: and then, laid over it, every second fault that can be reached."""

    cell: Cell
    paired: bool = False

    @property
    def needs_broker(self) -> bool:
        """True for the cells of AMQP: theirs is real."""
        return any(edge == BROKER for edge, _ in self.cell[1])


def workers() -> int:
    """As many as there are cores, but no more than four: each has a PostgreSQL."""
    return min(len(os.sched_getaffinity(0)), 4)


def spread(work: Callable[[Item], Came], items: Sequence[Item]) -> dict[Item, Came]:
    """`work` on every item in one of the worker processes; whichever is free takes the next."""
    with _processes(min(workers(), len(items))) as pool:
        return dict(zip(items, pool.map(work, items), strict=True))


def run(units: Sequence[Unit], broker: Callable[[], BrokerSettings]) -> dict[Unit, list[Result]]:
    """What each unit's executions came to, the first alone and then the pairs; `broker` is asked for one if needed."""
    real = [unit for unit in units if unit.needs_broker]
    rest = [unit for unit in units if not unit.needs_broker]
    with contextlib.ExitStack() as stack:
        found: list[Iterator[list[Result]]] = []
        for some, count, settings in ((rest, workers(), lambda: None), (real, 1, broker)):
            if some:  # the rest is at work while the broker starts
                pool = stack.enter_context(_processes(min(count, len(some)), settings()))
                found.append(pool.map(_run_unit, some))
        return dict(zip([*rest, *real], chain(*found), strict=True))


def engine() -> Engine:
    """The engine of this worker process."""
    assert _engine is not None
    return _engine


def _processes(count: int, broker: BrokerSettings | None = None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, get_context("spawn"), _open_world, (broker,))


def _open_world(broker: BrokerSettings | None) -> None:
    global _engine  # noqa: PLW0603 - one system a worker process, opened when it starts
    logging.disable(logging.CRITICAL)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    databases = stack.enter_context(contextlib.closing(Databases()))
    system = stack.enter_context(contextlib.closing(InProcessSystem(databases)))
    wakeups = stack.enter_context(contextlib.closing(WakeUps(broker, system.dbs["inventory"]))) if broker else None
    _engine = stack.enter_context(quick_motion(Engine(system, wakeups)))
    threading.Thread(target=_end_with_parent, args=(databases,), daemon=True).start()


def _end_with_parent(databases: Databases) -> None:
    """A session that is killed tells its pool nothing: nobody would ever end its processes, nor their servers."""
    parent = parent_process()
    assert parent
    wait([parent.sentinel])
    databases.close()
    os._exit(1)


def run_cell(cell: Cell) -> Result:
    """One execution, in this process."""
    flow, faults = cell
    outcome = engine().run(FLOWS[flow], *(Fault(edge, Kind(kind)) for edge, kind in faults))
    return {
        "flow": flow,
        "faults": faults,
        "code": code_of(flow, outcome),
        "told": outcome.told,
        "standing": {name: _in_words(value) for name, value in outcome.standing.items()},
        "sagas": list(outcome.sagas),
        "seen": list(outcome.seen),
        "unfired": [(fault.edge, fault.kind.value) for fault in outcome.unfired],
        "violations": outcome.violations,
    }


def _run_unit(unit: Unit) -> list[Result]:
    alone = run_cell(unit.cell)
    return [alone, *(_run_after(unit.cell, alone) if unit.paired else ())]


def _run_after(cell: Cell, alone: Result) -> Iterator[Result]:
    flow, faults = cell
    [(edge, kind)] = faults
    if edge not in alone["seen"]:
        return  # it never fired: that is found wrong of the cell itself
    later = alone["seen"][alone["seen"].index(edge) + 1 :]
    reached = [other for other in later if other != LOOK and not _are_beside(flow, edge, other)]
    for second in ((other, over.value) for other in reached for over in SECONDS[Kind(kind)]):
        yield run_cell((flow, (*faults, second)))


def _are_beside(flow: str, first: str, second: str) -> bool:
    """Two calls that the gate makes at the same time: neither comes after the other."""
    branches = {GATE.get(edge.partition("#")[0]) for edge in (first, second)}
    return flow == "verify" and branches == {"order", "seat"}


def _in_words(value: Any) -> str:
    return f"{value[0]} + {value[1]} frozen" if isinstance(value, tuple) else str(value)


def code_of(flow: str, outcome: Outcome) -> str:
    """The two characters of the table; `?` for a standing that none of the flow's ends describes."""
    return _told(outcome) + _end(flow, outcome)


def _told(outcome: Outcome) -> str:
    if outcome.answer is None:
        return "†"
    status = outcome.answer.status
    return "=" if status < 300 else {500: "5", 503: "3"}.get(status, "4")


def _end(flow: str, outcome: Outcome) -> str:
    fitting = [end for end, standing in ENDS[flow].items() if _fits(flow, end, standing, outcome)]
    if flow == "verify-otp":  # both ends look alike from outside; the answer tells
        return "D" if outcome.answer is not None and outcome.answer.status == 200 else "N"
    return fitting[0] if len(fitting) == 1 else "?"


def _fits(flow: str, end: str, standing: Any, outcome: Outcome) -> bool:
    stands = all(outcome.standing[name] == value for name, value in standing.items())
    return stands and is_journal_of(flow, end, outcome.sagas)
