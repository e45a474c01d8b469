"""Every flow × edge × fault against its expected outcome, then pairs of faults. Recovery follows each execution.

pytest tests/saga/matrix/test_matrix.py   # all cells, and the report
pytest tests/saga/matrix/test_matrix.py --cell "pay | user POST /credits/deduct | effect done, reply lost"   # one cell
pytest tests/saga/matrix/test_matrix.py -k "pay and ConfirmSeat"   # one edge with its pairs
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from tests.saga.in_process.faults import Kind
from tests.saga.in_process.scenarios import FLOWS
from tests.saga.matrix import cell_runner, json_report
from tests.saga.matrix.cell_runner import CellRun
from tests.saga.matrix.verify_outcome import (
    EXPECTED,
    SECOND_FAULTS,
    Cell,
    Result,
    cell_of,
    find_problems,
    parse_cell,
    replay_command,
)

pytestmark = pytest.mark.saga

REPORTS = Path(__file__).resolve().parents[3] / "reports"
WITHOUT_FAULTS: list[Cell] = [(flow, ()) for flow in FLOWS]
SINGLES: list[Cell] = [(flow, ((edge, kind.value),)) for flow, edge, kind in EXPECTED]
PAIRED: list[Cell] = [(flow, ((edge, kind.value),)) for flow, edge, kind in EXPECTED if kind in SECOND_FAULTS]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per cell of the table, or only the cell of --cell."""
    chosen = metafunc.config.getoption("--cell", None)
    every = {"flow": WITHOUT_FAULTS, "cell": SINGLES, "first": PAIRED}
    for name in every.keys() & set(metafunc.fixturenames):
        cells = every[name] if not chosen else [parse_cell(chosen)] if name == "cell" else []
        metafunc.parametrize(name, cells, ids=_id)


def _id(cell: Cell) -> str:
    flow, faults = cell
    return "-".join((flow, *(f"{edge}-{Kind(kind).name}" for edge, kind in faults)))


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Iterator[dict[Cell, list[Result]]]:
    """Run the selected cells, each with its pairs. A full run also writes the report."""
    params = [item.callspec.params for item in request.session.items if _has_cell(item, request.path)]
    chosen = [{name: cell for name, cell in each.items() if isinstance(cell, tuple)} for each in params]
    paired = {params["first"] for params in chosen if "first" in params}
    cells = dict.fromkeys(cell for params in chosen for cell in params.values())
    runs = [CellRun(cell, cell in paired) for cell in cells]
    found = cell_runner.run(runs, lambda: request.getfixturevalue("broker").settings)
    yield {run.cell: results for run, results in found.items()}
    if len(cells) == len(WITHOUT_FAULTS) + len(SINGLES) and len(paired) == len(PAIRED):
        json_report.write(REPORTS, [result for results in found.values() for result in results])


def _has_cell(item: pytest.Item, path: Path) -> TypeGuard[pytest.Function]:
    return item.path == path and hasattr(item, "callspec")


def test_declared_edges_are_those_on_the_wire(flow: Cell, results: dict[Cell, list[Result]]) -> None:
    _assert_no_problems(results[flow])
    assert json_report.compare_edges(results[flow]) == {"undeclared": [], "unreached": []}


def test_cell(cell: Cell, results: dict[Cell, list[Result]]) -> None:
    _assert_no_problems(results[cell][:1])


def test_pairs_after(first: Cell, results: dict[Cell, list[Result]]) -> None:
    """Inject each second fault after the first one. `verify_outcome` derives the expected outcome from the table."""
    _assert_no_problems(results[first][1:])


def _assert_no_problems(results: list[Result]) -> None:
    failures = [
        f"{replay_command(cell_of(result))}\n  {'; '.join(problems)}\n  {result}"
        for result in results
        if (problems := find_problems(result))
    ]
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)
