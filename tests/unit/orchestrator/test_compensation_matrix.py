"""`docs/compensation-matrix.md` is up to date, and its data covers every step, edge and compensation claim."""

from __future__ import annotations

import pytest

from harness.report import claims
from services.orchestrator.saga.flows import SAGAS
from tests.claims import compensation_matrix as page
from tests.saga.matrix.expected_outcomes import SAGA_OF_FLOW
from tests.saga.matrix.spec_rows import EDGES, RELATED, ROWS

pytestmark = pytest.mark.unit

MATRIX_EDGES = list(dict.fromkeys((flow, edge) for flow, edge, _ in page.OUTCOMES))


def is_read(edge: str) -> bool:
    """Return whether a call only reads."""
    return " GET " in edge or edge.startswith("inventory Get")


def test_page_is_current() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.generate(), f"run {page.COMMAND}"


def test_every_action_of_a_saga_has_its_edges() -> None:
    actions = {(saga.flow, step.name) for saga in SAGAS.values() for step in saga.steps if step.do}
    assert {(SAGA_OF_FLOW.get(flow, flow), step) for flow, step in EDGES} == actions


def test_every_write_of_a_saga_is_an_edge_of_a_step() -> None:
    """Calls before the begin write do not belong to the saga, and its facts only read."""
    of_steps = {(flow, edge) for (flow, _), edges in EDGES.items() for edge in edges}
    variants = {
        (variant, edge)
        for variant in ("reserve flagged", "reserve again")  # the same steps, and one more
        for flow, edge in of_steps
        if flow == "reserve"
    }
    for flow in {flow for flow, _ in EDGES}:
        edges = [edge for of, edge in MATRIX_EDGES if of == flow]
        writes = {edge for edge in edges[edges.index("journal begin") :] if not is_read(edge) and "journal" not in edge}
        assert {(flow, edge) for edge in writes} <= of_steps | variants


def test_every_row_is_of_an_edge_and_a_claim_or_departure() -> None:
    assert {at for at in (*ROWS, *RELATED) if at not in MATRIX_EDGES} == set()
    assert set(ROWS.values()) <= claims.read_claims().keys()
    assert set(RELATED.values()) <= claims.read_claims().keys() | claims.read_departures().keys()


def test_page_names_a_test_for_every_compensation_claim() -> None:
    proven = page.find_tests()
    assert [claim.id for claim in page.list_claims() if not proven.get(claim.id)] == []
    assert {*ROWS.values()} <= {claim.id for claim in page.list_claims()}


def test_page_links_the_undo_of_a_step_with_its_line() -> None:
    pay = SAGAS["pay"]
    assert "`refund_credits` [purchase_steps.py:" in page.describe_undo(pay, pay.steps[0])
    assert "goes forward" in page.describe_undo(SAGAS["refund"], SAGAS["refund"].steps[1])
