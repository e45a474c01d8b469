"""The rows of the system itself: rates, CPU and latencies, and their growth with the number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from harness.bench.load_generator import Load
from harness.bench.measure import Bench, Cost, Rate
from harness.bench.runs import Runs
from harness.bench.verdict import CPU_TIME, INSTRUCTIONS, RATE, TIME, Bounds, Key, Row, Table, at_least, at_most

EVENT_SIZES = (100, 5_000, 50_000)
MIDDLE = EVENT_SIZES[1]
SIZES = at_most(1.2, 1.2)

CPU_BOUNDS: Mapping[str, Mapping[str, Bounds]] = {
    "purchase": {INSTRUCTIONS: at_most(28, 18), CPU_TIME: at_most(110, 60)},
    "reserve": {INSTRUCTIONS: at_most(14, 8), CPU_TIME: at_most(40, 20)},
    "scan": {INSTRUCTIONS: at_most(14, 8), CPU_TIME: at_most(24, 12)},
    "event page of 1,000 seats": {INSTRUCTIONS: at_most(8, 4), CPU_TIME: at_most(8, 4)},
}
"""Bounds of CPU in empty routes by unit. An empty route and a purchase need other instructions per millisecond."""


@dataclass
class Growth:
    """Collects figures for each multiple of the old rows: the rounds by figure and multiple."""

    figures: dict[Key, dict[str, list[float]]] = field(default_factory=dict)
    served_by: dict[Key, int] = field(default_factory=dict)

    def add(self, multiple: int, name: str, unit: str, served_by: int, rounds: Sequence[float]) -> None:
        """Keep the rounds of a figure, which is a cost: more is worse."""
        self.figures.setdefault((name, unit), {})[f"{multiple}×"] = list(rounds)
        self.served_by[name, unit] = served_by

    def build_rows(self) -> list[Row]:
        """Build a row for each figure: how far it grows with the number of old rows."""
        rows = []
        for (name, unit), by_multiple in self.figures.items():
            base, *others = by_multiple.values()
            if others:
                worst = max(others, key=median)
                raw = ", ".join(f"{at} {median(found):.3g}" for at, found in by_multiple.items())
                ratios = [now / then for now, then in zip(worst, base, strict=False)]
                served_by = self.served_by[name, unit]
                rows.append(Row(f"growth with rows: {name}", ratios, unit, served_by, at_most(1.3, 1.1), raw))
        return rows


@dataclass(frozen=True)
class BaseFigures:
    """Figures of the base size that other rows and the report use."""

    purchase: Rate
    purchase_cost: Cost
    cpu: Mapping[str, Cost]


def measure_base(bench: Bench, multiple: int, growth: Growth, table: Table) -> BaseFigures:
    """Measure every figure at the base size and add its rows."""
    grpc = bench.measure_reserve_seat()
    table.add(_build_rate_row("ReserveSeat over gRPC, one process", grpc, at_least(0.1, 0.2)))
    reserves = bench.measure_rates([partial(Runs.reserve, event_size=size) for size in EVENT_SIZES])
    table.add(*_build_size_rows("reserve over HTTP", reserves, at_least(0.025, 0.035)))
    purchases = bench.measure_rates([partial(Runs.purchase, event_size=size) for size in EVENT_SIZES])
    table.add(*_build_size_rows("reserve + pay", purchases, at_least(0.012, 0.02)))
    scan = bench.measure_rate(Runs.scan)
    table.add(_build_rate_row("scan", scan, at_least(0.03, 0.045)))
    cpu = _measure_cpu(bench)
    cpu["reserve"] = bench.measure_cost(partial(Runs.reserve, event_size=MIDDLE))
    cpu["event page of 1,000 seats"] = bench.measure_event_cost()
    table.add(*(_build_cpu_row(name, cost) for name, cost in cpu.items()))
    hot_seat = bench.measure_hot_seat()
    table.add(_build_hot_seat_row(hot_seat))
    losers = [nowait / blocking for nowait, blocking in bench.measure_losers()]
    table.add(Row("p99 of losers, NOWAIT ÷ blocking", losers, TIME, 0, at_most(0.2, 0.1)))
    rates = {"ReserveSeat": grpc, "reserve": reserves[1], "reserve + pay": purchases[1], "scan": scan}
    _keep(growth, multiple, rates, cpu, hot_seat)
    return BaseFigures(purchases[1], cpu["purchase"], cpu)


def measure_multiple(bench: Bench, multiple: int, growth: Growth) -> None:
    """Measure the figures that could grow with the number of old rows."""
    rates = {
        "ReserveSeat": bench.measure_reserve_seat(),
        "reserve": bench.measure_rate(partial(Runs.reserve, event_size=MIDDLE)),
        "reserve + pay": bench.measure_rate(partial(Runs.purchase, event_size=MIDDLE)),
        "scan": bench.measure_rate(Runs.scan),
    }
    cpu = _measure_cpu(bench) | {"event page of 1,000 seats": bench.measure_event_cost()}
    _keep(growth, multiple, rates, cpu, bench.measure_hot_seat())


def _measure_cpu(bench: Bench) -> dict[str, Cost]:
    purchase = bench.measure_cost(partial(Runs.purchase, event_size=MIDDLE), is_complete=True)
    return {"purchase": purchase, "scan": bench.measure_cost(Runs.scan)}


def _keep(
    growth: Growth,
    multiple: int,
    rates: Mapping[str, Rate],
    cpu: Mapping[str, Cost],
    hot_seat: Sequence[tuple[Load, Load]],
) -> None:
    for name, rate in rates.items():
        costs = [1 / relative for relative in rate.relatives]
        growth.add(multiple, f"{name}, in SQL holds", RATE, rate.load.served_by, costs)
    for name, cost in cpu.items():
        if name != "reserve":  # a purchase includes it
            growth.add(multiple, f"CPU per {name}, in empty routes", cost.unit, cost.load.served_by, cost.relatives)
    growth.add(multiple, "hot seat, p99 ÷ p50", TIME, hot_seat[0][1].served_by, _divide_latencies(hot_seat))


def _build_rate_row(name: str, rate: Rate, bounds: Bounds) -> Row:
    return Row(f"{name} ÷ SQL baseline", rate.relatives, RATE, rate.load.served_by, bounds, show_latencies(rate.load))


def _build_size_rows(name: str, rates: Sequence[Rate], bounds: Bounds) -> list[Row]:
    slowest = min(rates, key=lambda rate: median(rate.relatives))
    raw = ", ".join(f"{size:,} seats {rate.load.rate:.0f}/s" for size, rate in zip(EVENT_SIZES, rates, strict=True))
    by_share = sorted(rates, key=lambda rate: median(rate.shares))
    by_round = zip(by_share[-1].shares, by_share[0].shares, strict=True)
    served_by = slowest.load.served_by
    return [
        Row(f"{name} ÷ SQL baseline", slowest.relatives, RATE, served_by, bounds, raw),
        Row(f"{name}: fastest ÷ slowest event size", [high / low for high, low in by_round], RATE, served_by, SIZES),
    ]


def _build_cpu_row(name: str, cost: Cost) -> Row:
    used = sorted(cost.load.used.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{process.removesuffix('-service')} {amount:.2f}" for process, amount in used if amount >= 0.05)
    raw = f"{cost.load.cost:.2f} ÷ {cost.empty_route:.2f} {cost.scale}: {parts}"
    bounds = CPU_BOUNDS[name].get(cost.unit)
    return Row(f"CPU per {name} ÷ empty route", cost.relatives, cost.unit, cost.load.served_by, bounds, raw)


def _build_hot_seat_row(rounds: Sequence[tuple[Load, Load]]) -> Row:
    contended, single = rounds[0]
    raw = f"first round: {contended.percentile(0.99) * 1e3:.0f} ÷ {single.percentile(0.5) * 1e3:.1f} ms"
    name = "hot seat: p99 of 100 clients ÷ p50 of one"
    return Row(name, _divide_latencies(rounds), TIME, single.served_by, at_most(20, 10), raw)


def _divide_latencies(rounds: Sequence[tuple[Load, Load]]) -> list[float]:
    return [contended.percentile(0.99) / single.percentile(0.5) for contended, single in rounds]


def show_latencies(load: Load) -> str:
    """Return the rate and the latencies of a run as text."""
    return f"{load.rate:.0f}/s, p50 {load.percentile(0.5) * 1e3:.1f} ms, p99 {load.percentile(0.99) * 1e3:.1f} ms"
