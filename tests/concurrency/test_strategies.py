"""Six locking strategies for one seat, compared on one table: no guard oversells, and NOWAIT losers do not wait."""

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
    BuyResult,
    LockWaitMonitor,
    create_seats,
    percentile,
    sell_during_lock,
    sell_to_concurrent_buyers,
)
from harness.report.charts import dots
from tests.concurrency.figures import Figures
from tests.concurrency.linearizability import Op, check
from tests.concurrency.recorder import group_by_seat
from tests.concurrency.seat_model import FREE, OK, SeatModel
from tests.concurrency.timeline_svg import draw_timeline

pytestmark = pytest.mark.concurrency

BUYERS, SEATS, WORK_SECONDS = 16, 24, 0.005
HOLD_SECONDS, HELD_SEATS = 0.2, 6
NOWAIT_TO_BLOCKING = 0.2  # limit for the wait of a NOWAIT loser, as a share of a blocked loser's wait
WAITING = {BLOCKING, "conditional UPDATE", "version column", NO_GUARD}  # an UPDATE waits for the row, too

Connect = Callable[[], Any]
Results = dict[str, tuple[list[BuyResult], LockWaitMonitor]]


@pytest.fixture(scope="module")
def connect(stack: Stack) -> Connect:
    """A function that connects to the `postgres` database of the stack's server."""
    return partial(psycopg2.connect, stack.admin_dsn("postgres"))


@pytest.fixture(scope="module")
def results(connect: Connect, stack: Stack, figures: Figures) -> Results:
    """The results of every strategy in one run, each on its own seats."""
    found: Results = {}
    with create_seats(connect, SEATS * len(STRATEGIES)):
        for number, strategy in enumerate(STRATEGIES):
            seats = range(number * SEATS + 1, (number + 1) * SEATS + 1)
            with LockWaitMonitor(stack.admin_dsn("postgres")) as lock_waits:
                buys = sell_to_concurrent_buyers(connect, strategy, BUYERS, seats, WORK_SECONDS)
            found[strategy] = buys, lock_waits
    _report(found, figures)
    return found


def _report(results: Results, figures: Figures) -> None:
    rows = {}
    for strategy, (buys, lock_waits) in results.items():
        lost = [buy.seconds * 1000 for buy in buys if not buy.has_won] or [0.0]
        rows[strategy] = {
            "losers' p50, ms": round(percentile(lost, 0.5), 2),
            "losers' p99, ms": round(percentile(lost, 0.99), 2),
            "winners per seat": round(sum(buy.has_won for buy in buys) / SEATS, 2),
            "wasted transactions per seat": round(sum(buy.wasted for buy in buys) / SEATS, 2),
            "maximum of waiting processes": lock_waits.max_waiting,
        }
    figures.add("strategies", buyers=BUYERS, seats=SEATS, work_ms=WORK_SECONDS * 1000, results=rows)
    latencies = {name: {key: row[key] for key in ("losers' p50, ms", "losers' p99, ms")} for name, row in rows.items()}
    figures.save_picture("strategies", dots(f"Latency of losers, {BUYERS} buyers of one seat", "ms", latencies))


def count_winners(buys: list[BuyResult]) -> Counter[int]:
    """Count the winners of each seat."""
    return Counter(buy.seat for buy in buys if buy.has_won)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != NO_GUARD])
def test_every_seat_has_exactly_one_winner(results: Results, strategy: str) -> None:
    buys, _ = results[strategy]
    winners = count_winners(buys)
    assert len(buys) == BUYERS * SEATS
    assert set(winners.values()) == {1}
    assert len(winners) == SEATS


@pytest.mark.negative_control
def test_seats_without_a_guard_are_sold_more_than_once(results: Results) -> None:
    buys, _ = results[NO_GUARD]
    assert max(count_winners(buys).values()) > 1, "the control did not fail, so these results prove nothing"


def make_histories(buys: list[BuyResult]) -> dict[str, list[Op]]:
    """Return the buys of each seat as operations for the checker. A loser learns that the seat is not available."""
    return group_by_seat(
        (
            f"seat {buy.seat}",
            Op(
                f"buyer {buy.buyer}",
                "reserve",
                (f"order {buy.buyer}", f"buyer {buy.buyer}"),
                OK if buy.has_won else "LOST",
                buy.start,
                buy.end,
            ),
        )
        for buy in buys
    )


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != NO_GUARD])
def test_history_of_a_guarded_strategy_is_linearizable(results: Results, strategy: str) -> None:
    assert check(make_histories(results[strategy][0]), SeatModel(), FREE) is None


@pytest.mark.negative_control
def test_history_without_a_guard_is_not_linearizable(results: Results, figures: Figures) -> None:
    counterexample = check(make_histories(results[NO_GUARD][0]), SeatModel(), FREE)
    assert counterexample is not None, "the control did not fail: the checker accepts an oversold seat"
    figures.save_picture("counterexample", draw_timeline(counterexample))


def test_only_blocking_strategies_wait_for_locks(results: Results) -> None:
    waiting = {strategy: lock_waits.max_waiting for strategy, (_, lock_waits) in results.items()}
    assert all(waiting[strategy] == 0 for strategy in STRATEGIES.keys() - WAITING), waiting
    assert waiting[BLOCKING] > 0, "the control did not fail: plain FOR UPDATE must wait for locks"


def test_only_blocked_losers_wait_for_a_locked_row(connect: Connect, stack: Stack, figures: Figures) -> None:
    p99, waiting = {}, {}
    with create_seats(connect, 2 * HELD_SEATS):
        for number, strategy in enumerate((NOWAIT, BLOCKING)):
            seats = range(number * HELD_SEATS + 1, (number + 1) * HELD_SEATS + 1)
            with LockWaitMonitor(stack.admin_dsn("postgres")) as lock_waits:
                lost = sell_during_lock(connect, strategy, BUYERS, seats, HOLD_SECONDS)
            assert not any(buy.has_won for buy in lost), strategy
            p99[strategy], waiting[strategy] = percentile([buy.seconds for buy in lost], 0.99), lock_waits.max_waiting
    ratio = p99[NOWAIT] / p99[BLOCKING]
    milliseconds = {f"p99 ms, {strategy}": round(p99[strategy] * 1000, 2) for strategy in p99}
    figures.add("row locked for 200 ms", **milliseconds, ratio=round(ratio, 4), waiting_processes=waiting)
    assert waiting[NOWAIT] == 0
    assert waiting[BLOCKING] == BUYERS, "the control did not fail: blocked losers must show in pg_locks"
    assert p99[BLOCKING] >= HOLD_SECONDS * 0.9, "the control did not fail: blocked losers must be slow"
    assert ratio <= NOWAIT_TO_BLOCKING
