"""An account of staff that is limited to an area cannot act in another one, from the next call on."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.abuse.honest_buyers import HonestBuyers
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

ALL = frozenset({"gate", "support", "finance"})


def limit(system: TestSystem, staff: Person, area: str | None) -> None:
    system.rows("users_db", "UPDATE users SET staff_area = %s WHERE user_id = %s", area, staff.user_id)


def find_open_areas(staff: Person) -> set[str]:
    """Return the areas whose calls are not refused with FORBIDDEN."""
    nothing = str(uuid4())
    answers = {
        "gate": [staff.scan("AAAA", "HALL-B")],
        "support": [staff.transfer("reverse", nothing), staff.transfer("dismiss", nothing)],
        "finance": [staff.refund(nothing)],
    }
    return {area for area, given in answers.items() if all(answer.status != 403 for answer in given)}


def test_limit_applies_to_the_next_call(system: TestSystem, honest_buyers: Callable[[], HonestBuyers]) -> None:
    staff = system.staff()
    with honest_buyers():
        assert find_open_areas(staff) == ALL, "without a limit staff may do all"
        for area in sorted(ALL):
            limit(system, staff, area)
            assert find_open_areas(staff) == {area}
            assert staff.get("/api/audit").status == 200
        limit(system, staff, None)
        assert find_open_areas(staff) == ALL
