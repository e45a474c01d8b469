"""`make bench`: the table of figures in one run, as ratios to the floor of the same run.

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
from pathlib import Path
from typing import Any

from harness.bench.drive import Load
from harness.bench.ground import Ground
from harness.bench.measure import Bench
from harness.bench.verdict import Line, as_text, at_least, at_most
from harness.charts import dots
from harness.cleanup import make_room, take_down
from harness.compose import ROOT
from harness.errors import StackError
from harness.rundir import RunDir
from harness.stack import Stack

REPORTS = ROOT / "reports"
BASELINE = REPORTS / "bench-baseline.json"
RUN_DIR = Path(".run") / "bench"
ONCE = 5_000  # rows a table at 1×
SIZES = (100, 5_000, 50_000)
PRODUCTION = {"LOG_LEVEL": "INFO"}  # §13: DEBUG alone is off in production


def main(arguments: list[str]) -> int:
    """Measure, write down, print the table; the exit status."""
    options = _options(arguments)
    directory = RunDir(ROOT / RUN_DIR)
    make_room(directory)
    take_down(directory, volumes=True)
    began = time.monotonic()
    try:
        with Stack.up(run_dir=directory.path, env=PRODUCTION, quiet=True) as stack:
            lines, raw = _measured(stack, options)
    except StackError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    raw |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.monotonic() - began)}
    raw |= {"cores": os.cpu_count(), "repeats": options.repeats}
    _write(lines, raw, options.keep_baseline)
    return 1 if any(line.verdict == "MISSED" for line in lines) else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.bench")
    parser.add_argument("--rows", default="1,10,100", help="multiples of 5,000 rows a table, the first is the base")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; the median counts")
    parser.add_argument("--keep-baseline", action="store_true", help="make this run the baseline")
    return parser.parse_args(arguments)


def _measured(stack: Stack, options: argparse.Namespace) -> tuple[list[Line], dict[str, Any]]:
    multiples = [int(text) for text in options.rows.split(",")]
    stack.start_replica("inventory-service")  # a process of Python is one core
    ground = Ground(stack)
    ground.people()
    ground.grow(ONCE * multiples[0])
    bench = Bench(stack, ground, options.seconds, options.repeats)
    _warm(bench, ground)
    costs: dict[str, dict[str, float]] = {}
    lines, raw = _at_base(bench, costs)
    for multiple in multiples[1:]:
        ground.grow(ONCE * multiple)
        _at_scale(Bench(stack, ground, options.seconds, max(1, options.repeats - 1)), f"{multiple}×", costs)
    return lines + _scaling(costs), raw | {"costs": costs}


def _warm(bench: Bench, ground: Ground) -> None:
    """The first second of a process is not what is measured."""
    warm = Bench(bench.stack, ground, 1.0, 1)
    warm.reserve_seat()
    warm.purchase(SIZES[0])
    warm.scan()


def _at_base(bench: Bench, costs: dict[str, dict[str, float]]) -> tuple[list[Line], dict[str, Any]]:
    floor = bench.floor()
    grpc = bench.reserve_seat()
    reserves = {size: bench.reserve(size) for size in SIZES}
    purchases = {size: bench.purchase(size) for size in SIZES}
    scan, page = bench.scan(), bench.event_page()
    crowd, alone = bench.crowd()
    nowait, blocking = bench.losers()
    floor = (floor + bench.floor()) / 2  # before and after: the machine is not the same all the time
    middle = purchases[SIZES[1]]
    _keep(costs, "1×", floor, grpc, reserves[SIZES[1]], middle, scan, crowd / alone, page)
    lines = [
        at_least("ReserveSeat over gRPC ÷ floor", grpc.rate / floor, 0.18, 0.25, _a_second(grpc)),
        *_sized("reserve over HTTP", reserves, floor, 0.025, 0.035),
        *_sized("reserve + pay", purchases, floor, 0.012, 0.02),
        at_most("CPU a purchase, ms", middle.cpu, 7, 4.5, _by_process(middle)),
        at_least("scan ÷ floor", scan.rate / floor, 0.03, 0.045, _a_second(scan)),
        at_most("CPU a scan, ms", scan.cpu, 3.5, 2, _by_process(scan)),
        at_most(
            "hot seat: losers' p99 ÷ p50 alone", crowd / alone, 20, 10, f"{crowd * 1e3:.0f} / {alone * 1e3:.1f} ms"
        ),
        at_most("CPU an event of 1,000 seats, ms", page.cpu, 2, 1, _by_process(page)),
        at_most(
            "losers' p99, NOWAIT ÷ blocking",
            nowait / blocking,
            0.2,
            0.1,
            f"{nowait * 1e3:.1f} / {blocking * 1e3:.0f} ms",
        ),
    ]
    raw = {"floor": round(floor), "cpu_ms": {"purchase": middle.cpu_ms, "scan": scan.cpu_ms, "event page": page.cpu_ms}}
    return lines, raw


def _at_scale(bench: Bench, at: str, costs: dict[str, dict[str, float]]) -> None:
    crowd, alone = bench.crowd()
    loads = bench.reserve_seat(), bench.reserve(SIZES[1]), bench.purchase(SIZES[1]), bench.scan()
    _keep(costs, at, bench.floor(), *loads, crowd / alone, bench.event_page())


def _keep(
    costs: dict[str, dict[str, float]],
    at: str,
    floor: float,
    grpc: Load,
    reserve: Load,
    purchase: Load,
    scan: Load,
    crowd: float,
    page: Load,
) -> None:
    """What each thing costs with so many rows: ms a piece, or the row's own ratio."""
    found = {"floor": 1000 / floor, "ReserveSeat": 1000 / grpc.rate, "reserve": 1000 / reserve.rate}
    found |= {"reserve + pay": 1000 / purchase.rate, "CPU a purchase": purchase.cpu, "scan": 1000 / scan.rate}
    found |= {"CPU a scan": scan.cpu, "hot seat": crowd, "event page": page.cpu}
    for name, cost in found.items():
        costs.setdefault(name, {})[at] = cost


def _sized(name: str, loads: dict[int, Load], floor: float, gate: float, reach: float) -> list[Line]:
    rates = [load.rate for load in loads.values()]
    raw = ", ".join(f"{size:,} seats {load.rate:.0f}/s" for size, load in loads.items())
    return [
        at_least(f"{name} ÷ floor", min(rates) / floor, gate, reach, raw),
        at_most(f"{name}: flat over the sizes", max(rates) / min(rates), 1.2, 1.2),
    ]


def _scaling(costs: dict[str, dict[str, float]]) -> list[Line]:
    lines = []
    for name, by_rows in costs.items():
        base, *others = by_rows.values()
        if others:
            raw = ", ".join(f"{at} {cost:.3g}" for at, cost in by_rows.items())
            lines.append(at_most(f"rows: {name}", max(others) / base, 1.3, 1.1, raw))
    return lines


def _a_second(load: Load) -> str:
    return f"{load.rate:.0f}/s, p50 {load.percentile(0.5) * 1e3:.1f} ms, p99 {load.percentile(0.99) * 1e3:.1f} ms"


def _by_process(load: Load) -> str:
    used = sorted(load.cpu_ms.items(), key=lambda item: -item[1])
    return ", ".join(f"{name.removesuffix('-service')} {ms:.2f}" for name, ms in used if ms >= 0.05)


def _write(lines: list[Line], raw: dict[str, Any], keep: bool) -> None:
    REPORTS.mkdir(exist_ok=True)
    report = {**raw, "lines": [line.as_json() for line in lines]}
    before = json.loads(BASELINE.read_text())["lines"] if BASELINE.exists() else []
    print(as_text(lines, {line["name"]: line["measured"] for line in before}))
    print(f"\nfloor {raw['floor']:,} holds a second; {raw['seconds']} s in all")
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
