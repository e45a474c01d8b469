"""Every flow × edge × fault against its declared outcome, then pairs of faults; each ends in recovery and invariants.

pytest tests/saga/matrix/test_matrix.py   # all of it, and the report
pytest tests/saga/matrix/test_matrix.py --cell "pay | user POST /credits/deduct | effect done, reply lost"   # one cell
pytest tests/saga/matrix/test_matrix.py -k "pay and ConfirmSeat"   # an edge with its pairs
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.saga.in_process import process_pool
from tests.saga.in_process.faults import Kind
from tests.saga.in_process.process_pool import Unit
from tests.saga.in_process.scenarios import FLOWS
from tests.saga.matrix import json_report
from tests.saga.matrix.verify_outcome import DECLARED, SECONDS, Cell, Result, cell_of, parsed, replay, wrongs

pytestmark = pytest.mark.saga

REPORTS = Path(__file__).resolve().parents[3] / "reports"
CLEAN: list[Cell] = [(flow, ()) for flow in FLOWS]
SINGLES: list[Cell] = [(flow, ((edge, kind.value),)) for flow, edge, kind in DECLARED]
PAIRED: list[Cell] = [(flow, ((edge, kind.value),)) for flow, edge, kind in DECLARED if kind in SECONDS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The cells of the table; or, with --cell, the one that is asked for and nothing else."""
    chosen = metafunc.config.getoption("--cell", None)
    every = {"flow": CLEAN, "cell": SINGLES, "first": PAIRED}
    for name in every.keys() & set(metafunc.fixturenames):
        cells = every[name] if not chosen else [parsed(chosen)] if name == "cell" else []
        metafunc.parametrize(name, cells, ids=_id)


def _id(cell: Cell) -> str:
    flow, faults = cell
    return "-".join((flow, *(f"{edge}-{Kind(kind).name}" for edge, kind in faults)))


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[Cell, list[Result]]]:
    """What every cell that this run has selected came to, each followed by the pairs that begin with it."""
    params = [item.callspec.params for item in request.session.items if _is_of(item, request.path)]
    chosen = [{name: cell for name, cell in each.items() if isinstance(cell, tuple)} for each in params]
    paired = {params["first"] for params in chosen if "first" in params}
    cells = dict.fromkeys(cell for params in chosen for cell in params.values())
    units = [Unit(cell, cell in paired) for cell in cells]
    found = process_pool.run(units, lambda: request.getfixturevalue("broker").settings)
    yield {unit.cell: came for unit, came in found.items()}
    if len(cells) == len(CLEAN) + len(SINGLES) and len(paired) == len(PAIRED):
        json_report.write(REPORTS, [result for came in found.values() for result in came])


def _is_of(item: pytest.Item, path: Path) -> TypeGuard[pytest.Function]:
    return item.path == path and hasattr(item, "callspec")


def test_declared_edges_are_those_on_the_wire(flow: Cell, results: dict[Cell, list[Result]]) -> None:
    _hold(results[flow])
    assert json_report.edges_apart(results[flow]) == {"undeclared": [], "unreached": []}


def test_cell(cell: Cell, results: dict[Cell, list[Result]]) -> None:
    _hold(results[cell][:1])


def test_pairs_after(first: Cell, results: dict[Cell, list[Result]]) -> None:
    """Whatever strikes second, and be it in recovery: see `judging`."""
    _hold(results[first][1:])


def _hold(results: list[Result]) -> None:
    failures = [
        f"{replay(cell_of(result))}\n  {'; '.join(wrongs(result))}\n  {result}" for result in results if wrongs(result)
    ]
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)
