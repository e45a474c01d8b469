"""Every flow × edge × fault against its declared outcome, then pairs of faults; each ends in recovery and invariants.

Replay one cell:  pytest tests/saga/test_matrix.py -k "pay and ConfirmSeat and LOST_GIVES_UP"
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.saga import pool
from tests.saga.drawing import draw
from tests.saga.faults import Kind
from tests.saga.outcomes import ENDS, declared
from tests.saga.pool import Cell, Result

pytestmark = pytest.mark.saga

REPORT = Path(__file__).resolve().parents[2] / "reports" / "saga.json"
DECLARED = declared()
FIRSTS = (Kind.BLINK_GIVES_UP, Kind.LOST_GIVES_UP)


def _id(flow: str, edge: str, kind: Kind) -> str:
    return f"{flow}-{edge}-{kind.name}"


SINGLES: list[Cell] = [(flow, ((edge, kind.value),)) for flow, edge, kind in DECLARED]
PAIRED: list[Cell] = [(flow, ((edge, kind.value),)) for flow, edge, kind in DECLARED if kind in FIRSTS]
IDS = {cell: _id(*key) for cell, key in zip(SINGLES, DECLARED, strict=True)}


@pytest.fixture(scope="module")
def singles(request: pytest.FixtureRequest) -> dict[Cell, Result]:
    """The outcomes of the cells that this run has selected."""
    return pool.run_all(_selected(request, "cell"))


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest) -> dict[Cell, list[Result]]:
    """The outcomes of every second fault after the firsts that this run has selected."""
    return pool.run_pairs(_selected(request, "first"))


def _selected(request: pytest.FixtureRequest, name: str) -> list[Cell]:
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    return [params[name] for params in chosen if name in params]


@pytest.fixture(scope="module", autouse=True)
def report(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """What was run, for reports/saga.json: written when all of it was."""
    kept: dict[str, object] = {"undeclared": [], "unreached": []}
    yield kept
    single, paired = kept.get("singles"), kept.get("pairs")
    if isinstance(single, dict) and isinstance(paired, dict) and len(single) == len(SINGLES):
        results = [*single.values(), *(result for results in paired.values() for result in results)]
        kept |= {"executions": len(results), "cells": len(single)}
        kept |= {"singles": list(single.values()), "pairs": sum(map(len, paired.values()))}
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(kept, indent=1, ensure_ascii=False))
        draw(kept, REPORT.with_suffix(".html"))


def test_declared_edges_are_those_on_the_wire(report: dict[str, object]) -> None:
    on_the_wire = {(flow, edge) for flow, edges in pool.edges_of_all().items() for edge in edges}
    in_the_table = {(flow, edge) for flow, edge, _ in DECLARED}
    report["undeclared"] = sorted(on_the_wire - in_the_table)
    report["unreached"] = sorted(in_the_table - on_the_wire)
    assert on_the_wire == in_the_table


@pytest.mark.parametrize("cell", SINGLES, ids=IDS.get)
def test_cell(cell: Cell, singles: dict[Cell, Result], report: dict[str, object]) -> None:
    report["singles"] = singles
    flow, ((edge, kind),) = cell
    result = singles[cell]
    assert not result["unfired"], "the fault never fired"
    assert not result["violations"]
    assert result["code"] == DECLARED[flow, edge, Kind(kind)], result


@pytest.mark.parametrize("first", PAIRED, ids=IDS.get)
def test_pairs_after(first: Cell, pairs: dict[Cell, list[Result]], report: dict[str, object]) -> None:
    """Whatever strikes second, things end in one of the flow's honest ends, and the client is not told a lie."""
    report["pairs"] = pairs
    flow, _ = first
    for result in pairs[first]:
        assert not result["unfired"], result
        assert not result["violations"], result
        told, end = result["code"]
        assert end in ENDS[flow], result
        assert (told, end) not in LIES, result


LIES = {("=", "U"), ("=", "u"), ("=", "N"), ("5", "D"), ("4", "D")}
