"""Rules for every saga definition."""

from __future__ import annotations

from uuid import uuid4

import pytest

from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.orchestrator.saga.definition import Compensation, Pivot, Saga, State
from services.orchestrator.saga.flows import SAGAS
from services.orchestrator.saga.transfer_steps import require_transferable

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


def make_resale(**given: str) -> State:
    """The state of an initiate whose ticket cost 100 credits and whose buyer has 1000."""
    facts = {"seat_owner": "seller", "seller_user_id": "seller", "seat_status": "SOLD", "face_value": "100.00"}
    return State("initiate", uuid4(), 0, 1, {**facts, "buyer": {"credit_balance": "1000.00"}, **given})


@pytest.mark.parametrize("given", [{}, {"resale_max_multiple": "0"}, {"resale_max_multiple": "9"}])
def test_price_within_the_limit_or_without_one_is_allowed(given: dict[str, str]) -> None:
    require_transferable(make_resale(credits_amount="900.00", **given))


def test_price_above_the_multiple_of_the_face_value_is_refused() -> None:
    require_transferable(make_resale(credits_amount="110.00", resale_max_multiple="1.1"))
    with pytest.raises(Refused) as refused:
        require_transferable(make_resale(credits_amount="110.01", resale_max_multiple="1.1"))
    assert refused.value.code is ErrorCode.RESALE_PRICE_TOO_HIGH
    assert str(refused.value.details["max_credits"]) == "110.00"
