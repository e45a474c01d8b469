"""Rules for every saga definition."""

from __future__ import annotations

import pytest

from services.orchestrator.saga.definition import Compensation, Pivot, Saga
from services.orchestrator.saga.flows import SAGAS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("saga", SAGAS.values(), ids=SAGAS)
def test_step_before_the_pivot_has_an_undo_or_a_reason(saga: Saga) -> None:
    before = [step for step in saga.steps if not isinstance(step, Pivot) and not saga.is_past_pivot(step)]
    assert [step.name for step in before if (step.undo is None) != bool(step.no_undo)] == []


@pytest.mark.parametrize("saga", SAGAS.values(), ids=SAGAS)
def test_step_after_the_pivot_has_no_undo(saga: Saga) -> None:
    after = [step for step in saga.steps if isinstance(step, Pivot) or saga.is_past_pivot(step)]
    assert [step.name for step in after if step.undo or step.no_undo] == []


@pytest.mark.parametrize("saga", SAGAS.values(), ids=SAGAS)
def test_step_without_an_action_is_a_compensation(saga: Saga) -> None:
    assert [step.name for step in saga.steps if (step.do is None) != isinstance(step, Compensation)] == []
