"""The linearizability checker finds wrong results, finds nothing else, and is fast."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest

from tests.concurrency.figures import Figures
from tests.concurrency.histories import MODEL, generate_random, generate_valid, is_linearizable
from tests.concurrency.linearizability import NEVER, Counterexample, Op, check
from tests.concurrency.seat_model import FREE, OK, mark_lost_locks
from tests.concurrency.timeline_svg import draw_timeline

pytestmark = pytest.mark.concurrency

RECORDED, SEATS, SECONDS = 100_000, 500, 60.0


def op(what: str, result: str | None, start: float, end: float = NEVER, order: str = "a", user: str = "u") -> Op:
    """Build an operation of a separate client."""
    return Op(f"at {start:g}", what, (order, user) if what != "look" else (), result, start, end)


def check_seat(*ops: Op) -> Counterexample | None:
    """Check the history of one seat."""
    return check({"seat": ops}, MODEL, FREE)


GOOD = {
    "two concurrent reserves, one wins": [op("reserve", OK, 0, 3), op("reserve", "SEAT_UNAVAILABLE", 1, 2, "b")],
    "look during a reserve": [op("reserve", OK, 0, 3), op("look", "AVAILABLE//", 1, 2)],
    "held, released, held by another user": [
        op("reserve", OK, 0, 1),
        op("release", OK, 2, 3),
        op("reserve", OK, 2, 5, "b"),
        op("look", "HELD/b/u", 4, 6),
    ],
    "sale of unknown outcome took effect": [
        op("reserve", OK, 0, 1),
        op("sell", None, 2),
        op("look", "HELD/a/u", 3, 4),
        op("reserve", "SEAT_ALREADY_SOLD", 5, 6, "b"),
    ],
    "sale of unknown outcome had no effect": [
        op("reserve", OK, 0, 1),
        op("sell", None, 2),
        op("look", "HELD/a/u", 8, 9),
    ],
    "one payment twice": [op("reserve", OK, 0, 1), op("sell", OK, 2, 4), op("sell", OK, 3, 5)],
    "one of two gates admits": [
        op("reserve", OK, 0, 1),
        op("sell", OK, 2, 3),
        op("admit", "DUPLICATE", 4, 7),
        op("admit", OK, 5, 6),
    ],
}
BAD = {
    "two holders": [op("reserve", OK, 0, 3), op("reserve", OK, 1, 2, "b")],
    "stale look": [op("reserve", OK, 0, 1), op("look", "AVAILABLE//", 2, 3)],
    "refused while available": [op("reserve", "SEAT_UNAVAILABLE", 0, 1)],
    "refused after a release": [
        op("reserve", OK, 0, 1),
        op("release", OK, 2, 3),
        op("reserve", "SEAT_UNAVAILABLE", 4, 5, "b"),
    ],
    "sold without a hold": [op("sell", OK, 0, 1)],
    "released hold reappears": [
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
def test_linearizable_history_passes(case: str) -> None:
    assert check_seat(*GOOD[case]) is None


@pytest.mark.parametrize("case", BAD)
@pytest.mark.negative_control
def test_other_history_gives_a_counterexample(case: str) -> None:
    assert check_seat(*BAD[case]) is not None


def test_checker_agrees_with_trying_every_order() -> None:
    dice = Random(8)
    verdicts = []
    for _ in range(2_000):
        ops = generate_random(dice, dice.randint(2, 6))
        verdicts.append(is_linearizable(ops))
        assert (check_seat(*ops) is None) == verdicts[-1], "\n".join(map(str, ops))
    assert min(verdicts.count(True), verdicts.count(False)) > 200, "almost all histories have the same verdict"


def test_100_000_operations_are_checked_within_a_minute(figures: Figures) -> None:
    dice = Random(1)
    histories = {f"seat {n}": generate_valid(dice, RECORDED // SEATS, 8) for n in range(SEATS)}
    while (total := sum(map(len, histories.values()))) < RECORDED:
        histories[f"seat {len(histories)}"] = generate_valid(dice, RECORDED // SEATS, 8)
    start = time.monotonic()
    assert check(histories, MODEL, FREE) is None
    seconds = time.monotonic() - start
    figures.add("linearizability", operations=total, seconds=round(seconds, 2))
    assert seconds <= SECONDS


@pytest.mark.negative_control
def test_one_wrong_result_among_many_is_found_and_isolated() -> None:
    ops = generate_valid(Random(3), 2_000, 8)
    at, look = next(
        (n, o) for n, o in enumerate(ops) if n > 1_000 and o.what == "look" and str(o.result).startswith("HELD")
    )
    ops[at] = replace(look, result="HELD/no-order/no-user")
    counterexample = check_seat(*ops)
    assert counterexample is not None
    assert counterexample.wrong is ops[at]
    assert len(counterexample.ops) < 40
    kinds = [MODEL.changes(o) for o in counterexample.ops if o is not counterexample.wrong]
    assert all(kinds), "a minimal counterexample has no looks or refusals of other clients"


def test_refusal_is_marked_lost_only_if_the_row_may_be_locked() -> None:
    alone, during = op("reserve", "SEAT_UNAVAILABLE", 0, 1), op("reserve", "SEAT_UNAVAILABLE", 2, 5, "b")
    other = op("release", "NOT_HELD", 3, 4)
    look = op("look", "AVAILABLE//", 0, 1)
    assert [o.result for o in mark_lost_locks([alone, during, other, look])] == [
        "SEAT_UNAVAILABLE",
        "LOST",
        "NOT_HELD",
        "AVAILABLE//",
    ]


def test_counterexample_is_shown_as_text_and_as_a_picture() -> None:
    counterexample = check_seat(*BAD["two holders"])
    assert counterexample is not None
    text, picture = str(counterexample), draw_timeline(counterexample)
    assert text.count("reserve(") == picture.count("reserve(") == 2
    assert "← here" in text
    assert picture.startswith("<svg")
