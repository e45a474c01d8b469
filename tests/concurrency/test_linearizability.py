"""The checker itself: it finds what is wrong, and only that, and is quick about it."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest

from tests.concurrency.figures import Figures
from tests.concurrency.histories import MODEL, anything, has_an_order, lived
from tests.concurrency.linearizability import NEVER, Counterexample, Op, check
from tests.concurrency.seat_model import FREE, OK, excused
from tests.concurrency.timeline_svg import timeline

pytestmark = pytest.mark.concurrency

RECORDED, SEATS, SECONDS = 100_000, 500, 60.0


def op(what: str, got: str | None, call: float, back: float = NEVER, order: str = "a", user: str = "u") -> Op:
    """One operation of a client of its own."""
    return Op(f"at {call:g}", what, (order, user) if what != "look" else (), got, call, back)


def found(*ops: Op) -> Counterexample | None:
    """What the checker finds in one seat's history."""
    return check({"seat": ops}, MODEL, FREE)


GOOD = {
    "two at once, one wins": [op("reserve", OK, 0, 3), op("reserve", "SEAT_UNAVAILABLE", 1, 2, "b")],
    "a look may come before or after": [op("reserve", OK, 0, 3), op("look", "AVAILABLE//", 1, 2)],
    "held, given back, held by another": [
        op("reserve", OK, 0, 1),
        op("release", OK, 2, 3),
        op("reserve", OK, 2, 5, "b"),
        op("look", "HELD/b/u", 4, 6),
    ],
    "an unknown sale that did happen": [
        op("reserve", OK, 0, 1),
        op("sell", None, 2),
        op("look", "HELD/a/u", 3, 4),
        op("reserve", "SEAT_ALREADY_SOLD", 5, 6, "b"),
    ],
    "an unknown sale that did not": [op("reserve", OK, 0, 1), op("sell", None, 2), op("look", "HELD/a/u", 8, 9)],
    "one pay twice": [op("reserve", OK, 0, 1), op("sell", OK, 2, 4), op("sell", OK, 3, 5)],
    "of two gates one admits": [
        op("reserve", OK, 0, 1),
        op("sell", OK, 2, 3),
        op("admit", "DUPLICATE", 4, 7),
        op("admit", OK, 5, 6),
    ],
}
BAD = {
    "two holders": [op("reserve", OK, 0, 3), op("reserve", OK, 1, 2, "b")],
    "a stale look": [op("reserve", OK, 0, 1), op("look", "AVAILABLE//", 2, 3)],
    "refused while free": [op("reserve", "SEAT_UNAVAILABLE", 0, 1)],
    "refused after it was given back": [
        op("reserve", OK, 0, 1),
        op("release", OK, 2, 3),
        op("reserve", "SEAT_UNAVAILABLE", 4, 5, "b"),
    ],
    "sold without a hold": [op("sell", OK, 0, 1)],
    "a dead hold comes back": [
        op("reserve", OK, 0, 1),
        op("release", OK, 2, 3),
        op("look", "AVAILABLE//", 4, 5),
        op("look", "HELD/a/u", 6, 7),
    ],
    "two gates admit": [
        op("reserve", OK, 0, 1),
        op("sell", OK, 2, 3),
        op("admit", OK, 4, 7),
        op("admit", OK, 5, 6),
    ],
    "looks disagree on the order": [
        op("reserve", OK, 0, 9),
        op("look", "HELD/a/u", 1, 2),
        op("look", "AVAILABLE//", 3, 4),
    ],
}


@pytest.mark.parametrize("case", GOOD)
def test_what_can_be_explained_passes(case: str) -> None:
    assert found(*GOOD[case]) is None


@pytest.mark.parametrize("case", BAD)
@pytest.mark.negative_control
def test_what_cannot_be_explained_is_found(case: str) -> None:
    assert found(*BAD[case]) is not None


def test_it_agrees_with_trying_every_order() -> None:
    dice = Random(8)
    verdicts = []
    for _ in range(2_000):
        ops = anything(dice, dice.randint(2, 6))
        verdicts.append(has_an_order(ops))
        assert (found(*ops) is None) == verdicts[-1], "\n".join(map(str, ops))
    assert min(verdicts.count(True), verdicts.count(False)) > 200, "the histories are all of one kind"


def test_100_000_recorded_operations_are_judged_within_a_minute(figures: Figures) -> None:
    dice = Random(1)
    histories = {f"seat {n}": lived(dice, RECORDED // SEATS, 8) for n in range(SEATS)}
    while (total := sum(map(len, histories.values()))) < RECORDED:
        histories[f"seat {len(histories)}"] = lived(dice, RECORDED // SEATS, 8)
    began = time.monotonic()
    assert check(histories, MODEL, FREE) is None
    seconds = time.monotonic() - began
    figures.add("linearizability", operations=total, seconds=round(seconds, 2))
    assert seconds <= SECONDS


@pytest.mark.negative_control
def test_one_wrong_answer_among_many_is_found_and_cut_out() -> None:
    ops = lived(Random(3), 2_000, 8)
    at, held = next(
        (n, o) for n, o in enumerate(ops) if n > 1_000 and o.what == "look" and str(o.got).startswith("HELD")
    )
    ops[at] = replace(held, got="HELD/nobody/ever")
    counterexample = found(*ops)
    assert counterexample is not None
    assert counterexample.wrong is ops[at]
    assert len(counterexample.ops) < 40
    kinds = [MODEL.changes(o) for o in counterexample.ops if o is not counterexample.wrong]
    assert all(kinds), "looks and refusals of others explain nothing here"


def test_a_refusal_is_excused_only_while_the_row_may_be_in_other_hands() -> None:
    alone, during = op("reserve", "SEAT_UNAVAILABLE", 0, 1), op("reserve", "SEAT_UNAVAILABLE", 2, 5, "b")
    other = op("release", "NOT_HELD", 3, 4)
    looked = op("look", "AVAILABLE//", 0, 1)
    assert [o.got for o in excused([alone, during, other, looked])] == [
        "SEAT_UNAVAILABLE",
        "LOST",
        "NOT_HELD",
        "AVAILABLE//",
    ]


def test_a_counterexample_can_be_looked_at() -> None:
    counterexample = found(*BAD["two holders"])
    assert counterexample is not None
    text, picture = str(counterexample), timeline(counterexample)
    assert text.count("reserve(") == picture.count("reserve(") == 2
    assert "← here" in text
    assert picture.startswith("<svg")
