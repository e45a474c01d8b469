"""`make bench AGAINST=<ref>`: compare this checkout with another one, whose runs alternate with its own.

Both systems run at the same time on one machine, with the same interpreter and the load generator of this checkout.
A ratio is the figure of this checkout divided by that of the other one in the same round.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from harness.bench.checkout import Checkout, check_out
from harness.bench.code_lines import count_code_lines
from harness.bench.fixtures import BASE_ROWS, Fixtures
from harness.bench.leftovers import HOLD_SECONDS, Leftovers
from harness.bench.load_generator import LoadGenerator
from harness.bench.meter import CpuTimeMeter, NetMeter, measure_idle
from harness.bench.runs import Runs
from harness.bench.system import System, find_processes
from harness.bench.verdict import CPU_TIME, RATE, TIME, Bounds, Row, Table, at_least, at_most
from harness.runtime.compose import ROOT
from harness.runtime.run_directory import default_path

PRODUCTION = {"LOG_LEVEL": "INFO", "HOLD_TTL_SECONDS": str(HOLD_SECONDS)}  # reference, section 13: no DEBUG
EVENT_SIZE = 5_000
WARM_UP_SECONDS = 1.0

CPU_PER_PURCHASE, PURCHASES, PURCHASE_ALONE = "CPU per purchase", "purchases/s, 16 clients", "purchase alone, p50"
CPU_PER_RESERVE, RESERVES = "CPU per reserve", "reserves/s, 16 clients"
CPU_PER_SCAN, SCANS = "CPU per scan", "scans/s, 16 clients"
RESERVE_SEAT, HOT_SEAT = "ReserveSeat over gRPC/s, one process", "losers' p99 ÷ p50 alone, 100 clients"
CODE_LINES = "lines of code in services"


@dataclass(frozen=True)
class Comparison:
    """A figure of both checkouts: its unit, and the bounds of its ratio."""

    unit: str
    scale: float  # from the measured unit to `shown`
    shown: str
    bounds: Bounds | None = None


COMPARISONS: Mapping[str, Comparison] = {
    CPU_PER_PURCHASE: Comparison(CPU_TIME, 1, "ms", at_most(0.65, 0.5)),
    PURCHASES: Comparison(RATE, 1, "/s", at_least(1.4, 1.8)),
    PURCHASE_ALONE: Comparison(TIME, 1e3, "ms", at_most(0.8, 0.6)),
    CPU_PER_RESERVE: Comparison(CPU_TIME, 1, "ms", at_most(0.75, 0.6)),
    RESERVES: Comparison(RATE, 1, "/s"),
    CPU_PER_SCAN: Comparison(CPU_TIME, 1, "ms", at_most(0.75, 0.6)),
    SCANS: Comparison(RATE, 1, "/s"),
    RESERVE_SEAT: Comparison(RATE, 1, "/s", at_least(1.15, 1.5)),
    HOT_SEAT: Comparison(TIME, 1, ""),
}
HOT_SEAT_BOUNDS = at_most(12, 8)  # of the figure itself, not of the ratio of two checkouts

Round = Mapping[str, float]
"""The figures of one system in one round."""


def compare(reference: str, seconds: float, rounds: int) -> Table:
    """Measure both checkouts in alternation, print a row for each ratio and return the table. Raises StackError."""
    table = Table({})
    with check_out(reference) as other, LoadGenerator() as load_generator:
        here = Checkout(ROOT, sys.executable)
        lines = [float(count_code_lines(checkout.path / "services")) for checkout in (here, other)]
        with (
            _prepare(here, "here", load_generator, seconds) as new,
            _prepare(other, "other", load_generator, seconds) as old,
        ):
            served_by: dict[str, int] = {}
            table.note(f"both systems up, {reference} in {other.path.name}")
            pairs = []
            for number in range(rounds):
                pairs.append(_measure_pair(new, old, number, served_by))
                table.note(f"round {number + 1} of {rounds}")
    table.add(*build_rows(pairs, served_by))
    table.add(Row(CODE_LINES, [lines[0] / lines[1]], "lines", 0, None, f"{lines[0]:,.0f} ÷ {lines[1]:,.0f}"))
    return table


def _measure_pair(new: Runs, old: Runs, number: int, served_by: dict[str, int]) -> tuple[Round, Round]:
    """Measure both systems. They swap their places after each round, so that a trend of the machine cancels out."""
    if number % 2:
        before = measure_round(old, {})
        return measure_round(new, served_by), before
    return measure_round(new, served_by), measure_round(old, {})


def measure_round(runs: Runs, served_by: dict[str, int]) -> Round:
    """Measure each figure of one system once, and note how many processes served it."""
    purchase, alone = runs.purchase(EVENT_SIZE)(), replace(runs, is_complete=False).purchase(EVENT_SIZE, clients=1)()
    reserve, scan, grpc = runs.reserve(EVENT_SIZE)(), runs.scan()(), runs.reserve_seat()()
    contended, single = runs.try_hot_seat()
    loads = {PURCHASES: purchase, CPU_PER_PURCHASE: purchase, PURCHASE_ALONE: alone, RESERVE_SEAT: grpc}
    loads |= {RESERVES: reserve, CPU_PER_RESERVE: reserve, SCANS: scan, CPU_PER_SCAN: scan, HOT_SEAT: contended}
    served_by.update({name: load.served_by for name, load in loads.items()})
    return {
        CPU_PER_PURCHASE: purchase.cost,
        PURCHASES: purchase.rate,
        PURCHASE_ALONE: alone.percentile(0.5),
        CPU_PER_RESERVE: reserve.cost,
        RESERVES: reserve.rate,
        CPU_PER_SCAN: scan.cost,
        SCANS: scan.rate,
        RESERVE_SEAT: grpc.rate,
        HOT_SEAT: contended.percentile(0.99) / single.percentile(0.5),
    }


def build_rows(pairs: Sequence[tuple[Round, Round]], served_by: Mapping[str, int]) -> Iterator[Row]:
    """Build the rows: the ratio of both checkouts in each round, and the hot seat of this checkout."""
    for name, by in COMPARISONS.items():
        shown = [Row(name, [pair[side][name] for pair in pairs], by.unit, 0).measured * by.scale for side in (0, 1)]
        raw = f"{shown[0]:.4g} ÷ {shown[1]:.4g} {by.shown}".strip()
        yield Row(name, [new[name] / old[name] for new, old in pairs], by.unit, served_by[name], by.bounds, raw)
    yield Row(f"{HOT_SEAT}, here", [new[HOT_SEAT] for new, _ in pairs], TIME, served_by[HOT_SEAT], HOT_SEAT_BOUNDS)


@contextmanager
def _prepare(checkout: Checkout, name: str, load_generator: LoadGenerator, seconds: float) -> Iterator[Runs]:
    """Start the system of a checkout, insert its data and warm it up."""
    with checkout.start_system(default_path() / "against" / name, PRODUCTION) as system:
        yield prepare(system, load_generator, seconds)


def prepare(system: System, load_generator: LoadGenerator, seconds: float) -> Runs:
    """Return the runs of a system that has data and is warm. Their meter counts only the use beyond the idle one."""
    fixtures = Fixtures(system)
    fixtures.create_buyers()
    fixtures.grow(BASE_ROWS)
    runs = Runs(system, fixtures, Leftovers(system), load_generator, WARM_UP_SECONDS)
    for warm_up in (runs.purchase(EVENT_SIZE), runs.reserve_seat(), runs.scan()):
        warm_up()
    meter = CpuTimeMeter(find_processes(system))
    return replace(runs, seconds=seconds, meter=NetMeter(meter, measure_idle(meter)), is_complete=True)
