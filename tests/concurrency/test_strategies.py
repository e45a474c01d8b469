"""Six strategies for one seat, side by side on one table: who wins, what losing costs, and that no guard oversells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg2
import pytest

from harness import Stack
from harness.bench.locking_strategies import (
    BLOCKING,
    NO_GUARD,
    NOWAIT,
    STRATEGIES,
    Buy,
    Waiters,
    against_a_holder,
    contest,
    percentile,
    table,
)
from harness.report.charts import dots
from tests.concurrency.figures import Figures
from tests.concurrency.linearizability import Op, check
from tests.concurrency.recorder import partitioned
from tests.concurrency.seat_model import FREE, OK, SeatModel
from tests.concurrency.timeline_svg import timeline

pytestmark = pytest.mark.concurrency

BUYERS, SEATS, WORK_SECONDS = 16, 24, 0.005
HOLD_SECONDS, HELD_SEATS = 0.2, 6
NOWAIT_TO_BLOCKING = 0.2  # the gate: a loser under NOWAIT waits at most this share of what a blocked one waits
WAITING = {BLOCKING, "conditional UPDATE", "version column", NO_GUARD}  # an UPDATE waits for the row, too

Connect = Callable[[], Any]


@pytest.fixture(scope="module")
def connect(stack: Stack) -> Connect:
    """Connections to the stack's own PostgreSQL, beside the services' databases."""
    return partial(psycopg2.connect, stack.admin_dsn("postgres"))


@pytest.fixture(scope="module")
def contests(connect: Connect, stack: Stack, figures: Figures) -> dict[str, tuple[list[Buy], Waiters]]:
    """Every strategy in one run, each on seats of its own in the same table."""
    results = {}
    with table(connect, SEATS * len(STRATEGIES)):
        for number, strategy in enumerate(STRATEGIES):
            seats = range(number * SEATS + 1, (number + 1) * SEATS + 1)
            with Waiters(stack.admin_dsn("postgres")) as waiters:
                buys = contest(connect, strategy, BUYERS, seats, WORK_SECONDS)
            results[strategy] = buys, waiters
    _report(results, figures)
    return results


def _report(results: dict[str, tuple[list[Buy], Waiters]], figures: Figures) -> None:
    rows = {}
    for strategy, (buys, waiters) in results.items():
        lost = [buy.seconds * 1000 for buy in buys if not buy.won] or [0.0]
        rows[strategy] = {
            "losers' p50": round(percentile(lost, 0.5), 2),
            "losers' p99": round(percentile(lost, 0.99), 2),
            "winners per seat": round(sum(buy.won for buy in buys) / SEATS, 2),
            "transactions for nothing per seat": round(sum(buy.wasted for buy in buys) / SEATS, 2),
            "most waiters seen": waiters.most,
        }
    figures.add("strategies", buyers=BUYERS, seats=SEATS, work_ms=WORK_SECONDS * 1000, results=rows)
    drawn = {name: {key: row[key] for key in ("losers' p50", "losers' p99")} for name, row in rows.items()}
    figures.picture("strategies", dots(f"{BUYERS} buyers, one seat: what a loser waits", "ms", drawn))


def winners(buys: list[Buy]) -> Counter[int]:
    """How many believe that they have each seat."""
    return Counter(buy.seat for buy in buys if buy.won)


Contests = dict[str, tuple[list[Buy], Waiters]]


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != NO_GUARD])
def test_every_seat_has_exactly_one_winner(contests: Contests, strategy: str) -> None:
    buys, _ = contests[strategy]
    assert len(buys) == BUYERS * SEATS
    assert set(winners(buys).values()) == {1}
    assert len(winners(buys)) == SEATS


@pytest.mark.negative_control
def test_without_a_guard_seats_are_sold_more_than_once(contests: Contests) -> None:
    buys, _ = contests[NO_GUARD]
    assert max(winners(buys).values()) > 1, "the control did not fail: this contest proves nothing"


def history_of(buys: list[Buy]) -> dict[str, list[Op]]:
    """What each buyer saw, as the checker reads it. A loser is told that the seat is not available."""
    return partitioned(
        (
            f"seat {buy.seat}",
            Op(
                f"buyer {buy.buyer}",
                "reserve",
                (f"order {buy.buyer}", f"buyer {buy.buyer}"),
                OK if buy.won else "LOST",
                buy.call,
                buy.back,
            ),
        )
        for buy in buys
    )


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != NO_GUARD])
def test_the_history_of_a_guarded_contest_is_linearizable(contests: Contests, strategy: str) -> None:
    assert check(history_of(contests[strategy][0]), SeatModel(), FREE) is None


@pytest.mark.negative_control
def test_the_history_without_a_guard_is_not(contests: Contests, figures: Figures) -> None:
    counterexample = check(history_of(contests[NO_GUARD][0]), SeatModel(), FREE)
    assert counterexample is not None, "the control did not fail: the checker passes what oversells"
    figures.picture("counterexample", timeline(counterexample))


def test_only_strategies_that_block_show_waiters(contests: Contests) -> None:
    seen = {strategy: waiters.most for strategy, (_, waiters) in contests.items()}
    assert all(seen[strategy] == 0 for strategy in STRATEGIES.keys() - WAITING), seen
    assert seen[BLOCKING] > 0, "the control did not fail: plain FOR UPDATE has to show waiters"


def test_nowait_losers_do_not_wait_for_a_holder_and_blocked_ones_do(
    connect: Connect, stack: Stack, figures: Figures
) -> None:
    p99, most = {}, {}
    with table(connect, 2 * HELD_SEATS):
        for number, strategy in enumerate((NOWAIT, BLOCKING)):
            seats = range(number * HELD_SEATS + 1, (number + 1) * HELD_SEATS + 1)
            with Waiters(stack.admin_dsn("postgres")) as waiters:
                lost = against_a_holder(connect, strategy, BUYERS, seats, HOLD_SECONDS)
            assert not any(buy.won for buy in lost), strategy
            p99[strategy], most[strategy] = percentile([buy.seconds for buy in lost], 0.99), waiters.most
    ratio = p99[NOWAIT] / p99[BLOCKING]
    milliseconds = {f"p99 ms, {strategy}": round(p99[strategy] * 1000, 2) for strategy in p99}
    figures.add("held for 200 ms", **milliseconds, ratio=round(ratio, 4), waiters=most)
    assert most[NOWAIT] == 0
    assert most[BLOCKING] == BUYERS, "the control did not fail: blocked losers have to show in pg_locks"
    assert p99[BLOCKING] >= HOLD_SECONDS * 0.9, "the control did not fail: blocked losers have to be slow"
    assert ratio <= NOWAIT_TO_BLOCKING
