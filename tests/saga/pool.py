"""Many cells on all cores: each worker process has a world of its own (database server, fake SMU, services).

Cells are plain tuples and outcomes plain dictionaries, so that they cross process boundaries and into the report.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from tests.databases import Databases
from tests.saga.engine import Engine, Outcome, quick_motion
from tests.saga.faults import Fault, Kind
from tests.saga.outcomes import ENDS, sagas_at
from tests.saga.scenarios import FLOWS
from tests.saga.world import World

Cell = tuple[str, tuple[tuple[str, str], ...]]  # flow, ((edge, kind), …)
Result = dict[str, Any]

_engine: Engine | None = None
SECOND = (
    Kind.LOST_GIVES_UP,
    Kind.DIES_BEFORE,
    Kind.DIES_AFTER,
)  # an answer lost, and death on either side of an effect


def workers() -> int:
    """As many as there are cores, but no more than four: each has a PostgreSQL."""
    return min(len(os.sched_getaffinity(0)), 4)


def run_all(cells: list[Cell]) -> dict[Cell, Result]:
    """Run every cell; whichever worker is free takes the next."""
    return _spread(_run, cells)


def run_pairs(firsts: list[Cell]) -> dict[Cell, list[Result]]:
    """For each first fault, every second one that can still be reached after it."""
    return _spread(_run_after, firsts)


def edges_of_all() -> dict[str, list[str]]:
    """Every flow's edges, discovered on the wire."""
    return _spread(_edges, list(FLOWS))


def _spread(work: Any, items: list[Any]) -> dict[Any, Any]:
    with ProcessPoolExecutor(workers(), get_context("spawn"), _open_world) as pool:
        return dict(zip(items, pool.map(work, items), strict=True))


def _open_world() -> None:
    global _engine  # noqa: PLW0603 - one world a worker process, opened when it starts
    logging.disable(logging.CRITICAL)
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    databases = stack.enter_context(contextlib.closing(Databases()))
    world = stack.enter_context(contextlib.closing(World(databases)))
    stack.enter_context(quick_motion())
    _engine = Engine(world)


def _in_this_process() -> Engine:
    assert _engine is not None
    return _engine


def _edges(flow: str) -> list[str]:
    return _in_this_process().edges(FLOWS[flow])


def _run(cell: Cell) -> Result:
    flow, faults = cell
    outcome = _in_this_process().run(FLOWS[flow], *(Fault(edge, Kind(kind)) for edge, kind in faults))
    return {
        "flow": flow,
        "faults": [f"{edge}: {kind}" for edge, kind in faults],
        "code": code_of(flow, outcome),
        "told": outcome.told,
        "standing": {name: str(value) for name, value in outcome.standing.items()},
        "sagas": list(outcome.sagas),
        "seen": list(outcome.seen),
        "unfired": [str(fault) for fault in outcome.unfired],
        "violations": outcome.violations,
    }


def _run_after(cell: Cell) -> list[Result]:
    flow, faults = cell
    alone = _run(cell)
    [(edge, _)] = faults
    later = alone["seen"][alone["seen"].index(edge) + 1 :]
    results = [_run((flow, (*faults, second))) for second in _seconds(later)]
    return [result for result in results if not _died_in_a_branch_beside(result)]


def _died_in_a_branch_beside(result: Result) -> bool:
    """The gate asks in two branches at once: a death in one may come before the other's fault could strike."""
    return bool(result["unfired"]) and result["told"] == "died"


def _seconds(edges: Iterable[str]) -> Iterator[tuple[str, str]]:
    for edge in edges:
        for kind in SECOND:
            yield edge, kind.value


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
    return stands and outcome.sagas == sagas_at(flow, end)
