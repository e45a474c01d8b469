"""`make bench`: the table of figures in one run, as ratios to the pace of the machine in the same run (`pace.py`).

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

from harness.bench.drive import Crew
from harness.bench.ground import Ground
from harness.bench.measure import Bench, Figure
from harness.bench.pace import Pacer, pacer
from harness.bench.verdict import Line, Table, at_least, at_most
from harness.charts import dots
from harness.compose import ROOT
from harness.errors import StackError
from harness.foreground import interrupt_once, own_stack
from harness.stack import Stack

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
        with own_stack("bench", PRODUCTION, quiet=True) as stack, Crew(stack) as crew, pacer(stack, crew) as pace:
            stack.start_replica("inventory-service")  # a process of Python is one core
            table.note("system up")
            raw = _measured(stack, crew, pace, options, table)
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


def _measured(stack: Stack, crew: Crew, pace: Pacer, options: argparse.Namespace, table: Table) -> dict[str, Any]:
    base, *multiples = [int(text) for text in options.rows.split(",")]
    ground = Ground(stack)

    def bench(repeats: int, seconds: float = options.seconds) -> Bench:
        return Bench(stack, ground, crew, pace, seconds, repeats)

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
    costs["floor, ms"] = _floors(pace, [base, *multiples])
    table.add(*_scaling(costs))
    return raw | {"costs": costs}


def _warm(bench: Bench) -> None:
    """The first second of a process is not what is measured."""
    bench.reserve_seat()
    bench.purchase(SIZES[0])
    bench.scan()


def _floors(pace: Pacer, multiples: list[int]) -> dict[str, float]:
    """Milliseconds of a bare hold in a table of each size, by turns."""
    turns = [{multiple: pace.floor(ONCE * multiple) for multiple in multiples} for _ in range(TURNS)]
    return {f"{multiple}×": 1000 / median(turn[multiple] for turn in turns) for multiple in multiples}


def _at_base(bench: Bench, at: str, costs: dict[str, dict[str, float]], table: Table) -> dict[str, Any]:
    grpc = bench.reserve_seat()
    table.add(at_least("ReserveSeat over gRPC ÷ floor", grpc.floors, 0.18, 0.25, _a_second(grpc)))
    reserves = dict(zip(SIZES, bench.reserve(*SIZES), strict=True))
    table.add(*_sized("reserve over HTTP", reserves, 0.025, 0.035))
    purchases = dict(zip(SIZES, bench.purchase(*SIZES), strict=True))
    table.add(*_sized("reserve + pay", purchases, 0.012, 0.02))
    middle = purchases[SIZES[1]]
    table.add(_cpu("CPU a purchase", middle, 7, 4.5))
    scan = bench.scan()
    table.add(at_least("scan ÷ floor", scan.floors, 0.03, 0.045, _a_second(scan)))
    table.add(_cpu("CPU a scan", scan, 3.5, 2))
    crowd, alone = bench.crowd()
    times = f"{crowd * 1e3:.0f} / {alone * 1e3:.1f} ms"
    table.add(at_most("hot seat: losers' p99 ÷ p50 alone", crowd / alone, 20, 10, times))
    page = bench.event_page()
    table.add(_cpu("CPU an event of 1,000 seats", page, 2, 1))
    nowait, blocking = bench.losers()
    times = f"{nowait * 1e3:.1f} / {blocking * 1e3:.0f} ms"
    table.add(at_most("losers' p99, NOWAIT ÷ blocking", nowait / blocking, 0.2, 0.1, times))
    figures = {"ReserveSeat": grpc, "reserve": reserves[SIZES[1]], "reserve + pay": middle, "scan": scan}
    _keep(costs, at, figures, crowd / alone, page)
    with_cpu = [figure.pace for figure in (*purchases.values(), scan, page)]
    paces = [figure.pace for figure in (grpc, *reserves.values())] + with_cpu
    return {
        "floor": round(mean(pace.floor for pace in paces)),
        "floors": [round(bound(pace.floor for pace in paces)) for bound in (min, max)],
        "route_ms": [round(bound(pace.route_ms for pace in with_cpu), 2) for bound in (min, max)],
        "cpu_ms": {"purchase": middle.run.cpu_ms, "scan": scan.run.cpu_ms, "event page": page.run.cpu_ms},
    }


def _at_scale(bench: Bench, at: str, costs: dict[str, dict[str, float]]) -> None:
    (reserve,), (purchase,) = bench.reserve(SIZES[1]), bench.purchase(SIZES[1])
    figures = {"ReserveSeat": bench.reserve_seat(), "reserve": reserve, "reserve + pay": purchase, "scan": bench.scan()}
    crowd, alone = bench.crowd()
    _keep(costs, at, figures, crowd / alone, bench.event_page())


def _keep(costs: dict[str, dict[str, float]], at: str, figures: dict[str, Figure], crowd: float, page: Figure) -> None:
    """What each row costs with so many rows in the tables: floors, bare routes or the row's own ratio."""
    found = {f"{name}, floors": 1 / figure.floors for name, figure in figures.items()}
    found |= {"CPU a purchase": figures["reserve + pay"].routes, "CPU a scan": figures["scan"].routes}
    found |= {"hot seat": crowd, "CPU an event": page.routes}
    for name, cost in found.items():
        costs.setdefault(name, {})[at] = cost


def _cpu(name: str, figure: Figure, gate_ms: float, reach_ms: float) -> Line:
    return at_most(f"{name} ÷ bare route", figure.routes, gate_ms / ROUTE_MS, reach_ms / ROUTE_MS, _by_process(figure))


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


def _by_process(figure: Figure) -> str:
    used = sorted(figure.run.cpu_ms.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name.removesuffix('-service')} {ms:.2f}" for name, ms in used if ms >= 0.05)
    return f"{figure.run.cpu:.2f} ms, a bare route {figure.pace.route_ms:.2f}: {parts}"


def _write(lines: list[Line], raw: dict[str, Any], keep: bool) -> None:
    REPORTS.mkdir(exist_ok=True)
    report = {**raw, "lines": [line.as_json() for line in lines]}
    slowest, fastest = raw["floors"]
    pace = (
        f"floor {slowest:,} to {fastest:,} holds a second; a bare route {raw['route_ms'][0]} to {raw['route_ms'][1]} ms"
    )
    print(f"\n{pace} of CPU; {raw['seconds']} s in all")
    for path in (REPORTS / "bench.json", *([BASELINE] if keep else [])):
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    with (REPORTS / "bench-history.jsonl").open("a") as history:
        history.write(
            json.dumps({"at": raw["at"], "floor": raw["floor"], **{x.name: x.measured for x in lines}}) + "\n"
        )
    rows = {line.name: {"measured": line.measured, "gate": line.gate, "reach": line.reach} for line in lines}
    (REPORTS / "bench.svg").write_text(dots("What was measured, what has to be, what is striven for", "", rows))
    used = {what: {name: ms for name, ms in by.items() if ms > 0.02} for what, by in raw["cpu_ms"].items()}
    (REPORTS / "bench-cpu.svg").write_text(dots("CPU by process", "ms", used))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
