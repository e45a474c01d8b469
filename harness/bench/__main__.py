"""`make bench`: the table of figures in one run: rates in floors (`floor.py`), CPU in bare routes (`route.py`).

    python -m harness.bench [--rows 1,10,100] [--seconds S] [--repeats N] [--keep-baseline]

Writes reports/bench.json with pictures beside it and appends to reports/bench-history.jsonl. Exit status 1 when a gate
is missed, 2 when the system could not be measured. The stack is one of its own, in .run/bench, from empty databases.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from statistics import mean, median
from typing import Any

from harness import runtime
from harness.bench.empty_route import BareRoute, bare_route
from harness.bench.fixtures import Ground
from harness.bench.load_generator import Crew, Load
from harness.bench.measure import Bench, Cost, Figure
from harness.bench.sql_baseline import floor
from harness.bench.verdict import Line, Table, at_least, at_most
from harness.errors import StackError
from harness.report.charts import dots
from harness.runtime.compose import ROOT
from harness.runtime.signals import interrupt_once
from harness.runtime.stack import Stack

REPORTS = ROOT / "reports"
BASELINE = REPORTS / "bench-baseline.json"
ONCE = 5_000  # rows a table at 1×
SIZES = (100, 5_000, 50_000)
ROUTE_MS = 0.25  # what a bare route took where the table's bounds for CPU were set, in ms; they hold as multiples of it
TURNS = 3
PRODUCTION = {"LOG_LEVEL": "INFO"}  # §13: DEBUG alone is off in production


def main(arguments: list[str]) -> int:
    """Measure, print each row as it comes, write down; the exit status."""
    options = _options(arguments)
    interrupt_once()
    began = time.monotonic()
    table = Table(_baseline())
    try:
        with (
            runtime.up_fresh("bench", PRODUCTION, quiet=True) as stack,
            Crew(stack) as crew,
            bare_route(stack, crew) as route,
        ):
            stack.start_replica("inventory-service")  # a process of Python is one core
            table.note("system up")
            raw = _measured(stack, crew, route, options, table)
    except StackError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    raw |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.monotonic() - began)}
    raw |= {"cores": os.cpu_count(), "repeats": options.repeats}
    _write(table.lines, raw, options.keep_baseline)
    return 1 if any(line.verdict == "MISSED" for line in table.lines) else 0


def _baseline() -> dict[str, float]:
    lines = json.loads(BASELINE.read_text())["lines"] if BASELINE.exists() else []
    return {line["name"]: line["measured"] for line in lines}


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.bench")
    parser.add_argument("--rows", default="1,10,100", help="multiples of 5,000 rows a table, the first is the base")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the median counts")
    parser.add_argument("--keep-baseline", action="store_true", help="make this run the baseline")
    return parser.parse_args(arguments)


def _measured(stack: Stack, crew: Crew, route: BareRoute, options: argparse.Namespace, table: Table) -> dict[str, Any]:
    base, *multiples = [int(text) for text in options.rows.split(",")]
    ground = Ground(stack)

    def bench(repeats: int, seconds: float = options.seconds) -> Bench:
        return Bench(stack, ground, crew, route, seconds, repeats)

    ground.people()
    ground.grow(ONCE * base)
    _warm(bench(1, 1.0))
    table.note("warm")
    costs: dict[str, dict[str, float]] = {}
    raw = _at_base(bench(options.repeats), f"{base}×", costs, table)
    for multiple in multiples:
        ground.grow(ONCE * multiple)
        table.note(f"{multiple}× the rows laid")
        _at_scale(bench(max(1, options.repeats - 1)), f"{multiple}×", costs)
        table.note(f"{multiple}× measured")
    costs["floor, ms"] = _floors(stack, [base, *multiples])
    table.add(*_scaling(costs))
    return raw | {"costs": costs}


def _warm(bench: Bench) -> None:
    """The first second of a process is not what is measured."""
    bench.reserve_seat()
    bench.purchase(SIZES[0])
    bench.scan()


def _floors(stack: Stack, multiples: list[int]) -> dict[str, float]:
    """Milliseconds of a bare hold in a table of each size, by turns."""
    turns = [{multiple: floor(stack, ONCE * multiple) for multiple in multiples} for _ in range(TURNS)]
    return {f"{multiple}×": 1000 / median(turn[multiple] for turn in turns) for multiple in multiples}


def _at_base(bench: Bench, at: str, costs: dict[str, dict[str, float]], table: Table) -> dict[str, Any]:
    grpc = bench.reserve_seat()
    table.add(at_least("ReserveSeat over gRPC ÷ floor", grpc.floors, 0.18, 0.25, _a_second(grpc)))
    reserves = dict(zip(SIZES, bench.reserve(*SIZES), strict=True))
    table.add(*_sized("reserve over HTTP", reserves, 0.025, 0.035))
    purchases = dict(zip(SIZES, bench.purchase(*SIZES), strict=True))
    table.add(*_sized("reserve + pay", purchases, 0.012, 0.02))
    middle, purchase = purchases[SIZES[1]], bench.cost_of_purchase(SIZES[1])
    table.add(_cpu("CPU a purchase", purchase, 7, 4.5, middle.run))
    scan, entry = bench.scan(), bench.cost_of_scan()
    table.add(at_least("scan ÷ floor", scan.floors, 0.03, 0.045, _a_second(scan)))
    table.add(_cpu("CPU a scan", entry, 3.5, 2, scan.run))
    crowd, alone = bench.crowd()
    times = f"{crowd * 1e3:.0f} / {alone * 1e3:.1f} ms"
    table.add(at_most("hot seat: losers' p99 ÷ p50 alone", crowd / alone, 20, 10, times))
    page = bench.cost_of_event()
    table.add(_cpu("CPU an event of 1,000 seats", page, 2, 1))
    nowait, blocking = bench.losers()
    times = f"{nowait * 1e3:.1f} / {blocking * 1e3:.0f} ms"
    table.add(at_most("losers' p99, NOWAIT ÷ blocking", nowait / blocking, 0.2, 0.1, times))
    figures = {"ReserveSeat": grpc, "reserve": reserves[SIZES[1]], "reserve + pay": middle, "scan": scan}
    _keep(costs, at, figures, crowd / alone, {"a purchase": purchase, "a scan": entry, "an event": page})
    floors = [figure.floor for figure in (grpc, *reserves.values(), *purchases.values(), scan)]
    return {
        "floor": round(mean(floors)),
        "floors": [round(min(floors)), round(max(floors))],
        "cpu": {"purchase": purchase.load.used, "scan": entry.load.used, "event page": page.load.used},
        "cpu_unit": purchase.unit,
        "cpu_ms": {"purchase": middle.run.used, "scan": scan.run.used},
    }


def _at_scale(bench: Bench, at: str, costs: dict[str, dict[str, float]]) -> None:
    (reserve,), (purchase,) = bench.reserve(SIZES[1]), bench.purchase(SIZES[1])
    figures = {"ReserveSeat": bench.reserve_seat(), "reserve": reserve, "reserve + pay": purchase, "scan": bench.scan()}
    crowd, alone = bench.crowd()
    cpu = {"a purchase": bench.cost_of_purchase(SIZES[1]), "a scan": bench.cost_of_scan()}
    _keep(costs, at, figures, crowd / alone, {**cpu, "an event": bench.cost_of_event()})


def _keep(
    costs: dict[str, dict[str, float]], at: str, figures: dict[str, Figure], crowd: float, cpu: dict[str, Cost]
) -> None:
    """What each row costs with so many rows in the tables: floors, bare routes or the row's own ratio."""
    found = {f"{name}, floors": 1 / figure.floors for name, figure in figures.items()}
    found |= {f"CPU {name}": cost.routes for name, cost in cpu.items()}
    for name, cost in (found | {"hot seat": crowd}).items():
        costs.setdefault(name, {})[at] = cost


def _cpu(name: str, cost: Cost, gate_ms: float, reach_ms: float, timed: Load | None = None) -> Line:
    """`timed`: a run that nobody counted in, for the clock's word on it."""
    used = sorted(cost.load.used.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{who.removesuffix('-service')} {much:.2f}" for who, much in used if much >= 0.05)
    raw = f"{cost.load.cost:.2f} {cost.unit}, a bare route {cost.route:.2f}: {parts}"
    clock = f"; by the clock {timed.cost:.1f} ms" if timed else ""
    return at_most(f"{name} ÷ bare route", cost.routes, gate_ms / ROUTE_MS, reach_ms / ROUTE_MS, raw + clock)


def _sized(name: str, figures: dict[int, Figure], gate: float, reach: float) -> list[Line]:
    floors, shares = ([getattr(figure, of) for figure in figures.values()] for of in ("floors", "share"))
    raw = ", ".join(f"{size:,} seats {figure.run.rate:.0f}/s" for size, figure in figures.items())
    return [
        at_least(f"{name} ÷ floor", min(floors), gate, reach, raw),
        at_most(f"{name}: flat over the sizes", max(shares) / min(shares), 1.2, 1.2),
    ]


def _scaling(costs: dict[str, dict[str, float]]) -> list[Line]:
    lines = []
    for name, by_rows in costs.items():
        base, *others = by_rows.values()
        if others:
            raw = ", ".join(f"{at} {cost:.3g}" for at, cost in by_rows.items())
            lines.append(at_most(f"rows: {name}", max(others) / base, 1.3, 1.1, raw))
    return lines


def _a_second(figure: Figure) -> str:
    run = figure.run
    return f"{run.rate:.0f}/s, p50 {run.percentile(0.5) * 1e3:.1f} ms, p99 {run.percentile(0.99) * 1e3:.1f} ms"


def _write(lines: list[Line], raw: dict[str, Any], keep: bool) -> None:
    REPORTS.mkdir(exist_ok=True)
    report = {**raw, "lines": [line.as_json() for line in lines]}
    slowest, fastest = raw["floors"]
    print(f"\nfloor {slowest:,} to {fastest:,} holds a second; {raw['seconds']} s in all")
    for path in (REPORTS / "bench.json", *([BASELINE] if keep else [])):
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    with (REPORTS / "bench-history.jsonl").open("a") as history:
        history.write(
            json.dumps({"at": raw["at"], "floor": raw["floor"], **{x.name: x.measured for x in lines}}) + "\n"
        )
    rows = {line.name: {"measured": line.measured, "gate": line.gate, "reach": line.reach} for line in lines}
    (REPORTS / "bench.svg").write_text(dots("What was measured, what has to be, what is striven for", "", rows))
    used = {what: {name: much for name, much in by.items() if much > 0.02} for what, by in raw["cpu"].items()}
    (REPORTS / "bench-cpu.svg").write_text(dots("CPU by process", raw["cpu_unit"], used))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
