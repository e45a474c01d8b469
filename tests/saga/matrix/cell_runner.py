"""Runs the cells of the fault matrix in worker processes, and encodes each outcome as in the table.

The cells of `broker publish` run in one more process, against the RabbitMQ of the session, and nothing else uses its
queues.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from services.chassis.settings import BrokerSettings
from tests.saga.in_process.engine import Outcome
from tests.saga.in_process.faults import RECOVERY, Fault, Kind
from tests.saga.in_process.process_pool import count_workers, engine, open_pool
from tests.saga.in_process.scenarios import FLOWS
from tests.saga.matrix.expected_outcomes import END_STATES, is_journal_of
from tests.saga.matrix.verify_outcome import SECOND_FAULTS, Cell, Result

BROKER = "broker publish"
TRANSFER_SEARCH = RECOVERY + "order GET /transfers"  # every recovery ends with this call, in all flows
PARALLEL_CALLS = {  # the scan makes the calls of its two branches at the same time
    "order GET /orders": "order",
    "inventory VerifyTicket": "seat",
    "event GET /events/{id}": "seat",
}


@dataclass(frozen=True)
class CellRun:
    """A cell to run. With `has_pairs`, each second fault that can be reached follows."""

    cell: Cell
    has_pairs: bool = False

    @property
    def needs_broker(self) -> bool:
        """Whether the cell needs a real RabbitMQ."""
        return any(edge == BROKER for edge, _ in self.cell[1])


def run(runs: Sequence[CellRun], get_broker: Callable[[], BrokerSettings]) -> dict[CellRun, list[Result]]:
    """Return the results of each run: first the cell alone, then its pairs. `get_broker` is called only if needed."""
    with_broker = [run for run in runs if run.needs_broker]
    others = [run for run in runs if not run.needs_broker]
    with contextlib.ExitStack() as stack:
        found: list[Iterator[list[Result]]] = []
        for some, count, get_settings in ((others, count_workers(), lambda: None), (with_broker, 1, get_broker)):
            if some:  # the other cells run while the broker starts
                pool = stack.enter_context(open_pool(min(count, len(some)), get_settings()))
                found.append(pool.map(_run_with_pairs, some))
        return dict(zip([*others, *with_broker], chain(*found), strict=True))


def run_cell(cell: Cell) -> Result:
    """Run one execution in this process."""
    flow, faults = cell
    outcome = engine().run(FLOWS[flow], *(Fault(edge, Kind(kind)) for edge, kind in faults))
    return {
        "flow": flow,
        "faults": faults,
        "code": encode_outcome(flow, outcome),
        "response": outcome.response,
        "end_state": {name: _describe(value) for name, value in outcome.end_state.items()},
        "sagas": list(outcome.sagas),
        "seen": list(outcome.seen),
        "unfired": [(fault.edge, fault.kind.value) for fault in outcome.unfired],
        "violations": outcome.violations,
    }


def _run_with_pairs(run: CellRun) -> list[Result]:
    first = run_cell(run.cell)
    return [first, *(_run_pairs(run.cell, first) if run.has_pairs else ())]


def _run_pairs(cell: Cell, first: Result) -> Iterator[Result]:
    flow, faults = cell
    [(edge, kind)] = faults
    if edge not in first["seen"]:
        return  # the fault never fired, which fails the cell itself
    later = first["seen"][first["seen"].index(edge) + 1 :]
    reached = [other for other in later if other != TRANSFER_SEARCH and not _are_parallel(flow, edge, other)]
    for second in ((other, then.value) for other in reached for then in SECOND_FAULTS[Kind(kind)]):
        yield run_cell((flow, (*faults, second)))


def _are_parallel(flow: str, first: str, second: str) -> bool:
    """Whether the scan makes both calls at the same time, so that their order is undefined.

    If one branch fails, the scan answers at once. A late call of the other branch then counts as one of the recovery.
    """
    branches = {PARALLEL_CALLS.get(edge.removeprefix(RECOVERY).partition("#")[0]) for edge in (first, second)}
    return flow == "verify" and branches == {"order", "seat"}


def _describe(value: Any) -> str:
    return f"{value[0]} + {value[1]} frozen" if isinstance(value, tuple) else str(value)


def encode_outcome(flow: str, outcome: Outcome) -> str:
    """Return the two characters of the table. The second is `?` if the state matches no end of the flow."""
    return _encode_response(outcome) + _encode_end(flow, outcome)


def _encode_response(outcome: Outcome) -> str:
    if outcome.answer is None:
        return "†"
    status = outcome.answer.status
    return "=" if status < 300 else {500: "5", 503: "3"}.get(status, "4")


def _encode_end(flow: str, outcome: Outcome) -> str:
    if flow == "verify-otp":  # both of its ends have the same state, so only the response distinguishes them
        return "D" if outcome.answer is not None and outcome.answer.status == 200 else "N"
    matching = [end for end in END_STATES[flow] if _is_end(flow, end, outcome)]
    return matching[0] if len(matching) == 1 else "?"


def _is_end(flow: str, end: str, outcome: Outcome) -> bool:
    has_state = all(outcome.end_state[name] == value for name, value in END_STATES[flow][end].items())
    return has_state and is_journal_of(flow, end, outcome.sagas)
