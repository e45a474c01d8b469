"""`make bench`: measure rates relative to the SQL baseline, and CPU relative to an empty route.

    python -m harness.bench [--rows 1,10,100] [--seconds S] [--repeats N] [--keep-baseline]

It writes reports/bench.json and pictures, and appends to reports/bench-history.jsonl. The exit status is 1 when a ratio
misses its limit, and 2 when the system could not be measured. It starts its own stack in .run/bench with empty
databases.
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
from harness.bench.empty_route import EmptyRoute, serve_empty_route
from harness.bench.fixtures import Fixtures
from harness.bench.load_generator import Load, LoadGenerator
from harness.bench.measure import Bench, Cost, Rate
from harness.bench.sql_baseline import measure_rate
from harness.bench.verdict import Row, Table, at_least, at_most
from harness.command_line import run_main
from harness.errors import StackError
from harness.report.charts import dots
from harness.runtime.compose import ROOT
from harness.runtime.signals import interrupt_once
from harness.runtime.stack import Stack

REPORTS = ROOT / "reports"
COMMITTED = REPORTS / "bench-baseline.json"
BASE_ROWS = 5_000  # per table at 1×
EVENT_SIZES = (100, 5_000, 50_000)
EMPTY_ROUTE_MS = 0.25  # on the machine where the bounds for CPU were set in milliseconds
TURNS = 3
PRODUCTION = {"LOG_LEVEL": "INFO"}  # reference, section 13: DEBUG is off in production

Costs = dict[str, dict[str, float]]
"""Figure: multiple of the old rows: cost."""


def main(arguments: list[str]) -> int:
    """Measure, print each row at once, write the reports and return the exit status."""
    options = _parse(arguments)
    interrupt_once()
    start = time.monotonic()
    table = Table(_read_committed())
    try:
        with (
            runtime.up_fresh("bench", PRODUCTION, quiet=True) as stack,
            LoadGenerator(stack) as load_generator,
            serve_empty_route(stack, load_generator) as empty_route,
        ):
            stack.start_replica("inventory-service")  # because one Python process uses one core
            table.note("system up")
            raw = _measure_all(stack, load_generator, empty_route, options, table)
    except StackError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    raw |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.monotonic() - start)}
    raw |= {"cores": os.cpu_count(), "repeats": options.repeats}
    _write(table.rows, raw, options.keep_baseline)
    return 1 if any(row.verdict == "MISSED" for row in table.rows) else 0


def _read_committed() -> dict[str, float]:
    rows = json.loads(COMMITTED.read_text())["rows"] if COMMITTED.exists() else []
    return {row["name"]: row["measured"] for row in rows}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.bench")
    parser.add_argument("--rows", default="1,10,100", help="table sizes in multiples of 5,000 rows, the base first")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each run (default: 1.5)")
    parser.add_argument("--repeats", type=int, default=3, help="runs per figure, of which the median counts")
    parser.add_argument("--keep-baseline", action="store_true", help="write this run to bench-baseline.json, too")
    return parser.parse_args(arguments)


def _measure_all(
    stack: Stack, load_generator: LoadGenerator, empty_route: EmptyRoute, options: argparse.Namespace, table: Table
) -> dict[str, Any]:
    base, *multiples = [int(text) for text in options.rows.split(",")]
    fixtures = Fixtures(stack)

    def bench(repeats: int, seconds: float = options.seconds) -> Bench:
        return Bench(stack, fixtures, load_generator, empty_route, seconds, repeats)

    fixtures.create_buyers()
    fixtures.grow(BASE_ROWS * base)
    _warm_up(bench(1, 1.0))
    table.note("warmed up")
    costs: Costs = {}
    raw = _measure_base(bench(options.repeats), f"{base}×", costs, table)
    for multiple in multiples:
        fixtures.grow(BASE_ROWS * multiple)
        table.note(f"{multiple}× the rows inserted")
        _measure_multiple(bench(max(1, options.repeats - 1)), f"{multiple}×", costs)
        table.note(f"{multiple}× measured")
    costs["SQL baseline, ms"] = _measure_sql_baselines(stack, [base, *multiples])
    table.add(*_growth_rows(costs))
    return raw | {"costs": costs}


def _warm_up(bench: Bench) -> None:
    """Send some load first, because the first second of a process is slow."""
    bench.measure_reserve_seat()
    bench.measure_purchases(EVENT_SIZES[0])
    bench.measure_scans()


def _measure_sql_baselines(stack: Stack, multiples: list[int]) -> dict[str, float]:
    """Return the milliseconds of a hold in SQL for each table size. The sizes take turns."""
    turns = [{multiple: measure_rate(stack, BASE_ROWS * multiple) for multiple in multiples} for _ in range(TURNS)]
    return {f"{multiple}×": 1000 / median(turn[multiple] for turn in turns) for multiple in multiples}


def _measure_base(bench: Bench, at: str, costs: Costs, table: Table) -> dict[str, Any]:
    grpc = bench.measure_reserve_seat()
    table.add(at_least("ReserveSeat over gRPC ÷ SQL baseline", grpc.relative, 0.18, 0.25, _latencies(grpc)))
    reserves = dict(zip(EVENT_SIZES, bench.measure_reserves(*EVENT_SIZES), strict=True))
    table.add(*_size_rows("reserve over HTTP", reserves, 0.025, 0.035))
    purchases = dict(zip(EVENT_SIZES, bench.measure_purchases(*EVENT_SIZES), strict=True))
    table.add(*_size_rows("reserve + pay", purchases, 0.012, 0.02))
    middle, purchase = purchases[EVENT_SIZES[1]], bench.measure_purchase_cost(EVENT_SIZES[1])
    table.add(_cpu_row("CPU per purchase", purchase, 7, 4.5, middle.load))
    scan, scan_cost = bench.measure_scans(), bench.measure_scan_cost()
    table.add(at_least("scan ÷ SQL baseline", scan.relative, 0.03, 0.045, _latencies(scan)))
    table.add(_cpu_row("CPU per scan", scan_cost, 3.5, 2, scan.load))
    contended, single = bench.measure_hot_seat()
    times = f"{contended * 1e3:.0f} ms ÷ {single * 1e3:.1f} ms"
    table.add(at_most("hot seat: p99 of 100 clients ÷ p50 of one", contended / single, 20, 10, times))
    event = bench.measure_event_cost()
    table.add(_cpu_row("CPU per event page of 1,000 seats", event, 2, 1))
    nowait, blocking = bench.measure_losers()
    times = f"{nowait * 1e3:.1f} ms ÷ {blocking * 1e3:.0f} ms"
    table.add(at_most("p99 of losers, NOWAIT ÷ blocking", nowait / blocking, 0.2, 0.1, times))
    rates = {"ReserveSeat": grpc, "reserve": reserves[EVENT_SIZES[1]], "reserve + pay": middle, "scan": scan}
    _keep_costs(costs, at, rates, contended / single, {"purchase": purchase, "scan": scan_cost, "event page": event})
    baselines = [rate.sql_baseline for rate in (grpc, *reserves.values(), *purchases.values(), scan)]
    return {
        "sql_baseline": round(mean(baselines)),
        "sql_baseline_range": [round(min(baselines)), round(max(baselines))],
        "cpu": {"purchase": purchase.load.used, "scan": scan_cost.load.used, "event page": event.load.used},
        "cpu_unit": purchase.unit,
        "cpu_ms": {"purchase": middle.load.used, "scan": scan.load.used},
    }


def _measure_multiple(bench: Bench, at: str, costs: Costs) -> None:
    (reserve,), (purchase,) = bench.measure_reserves(EVENT_SIZES[1]), bench.measure_purchases(EVENT_SIZES[1])
    rates = {"ReserveSeat": bench.measure_reserve_seat(), "reserve": reserve, "reserve + pay": purchase}
    rates["scan"] = bench.measure_scans()
    contended, single = bench.measure_hot_seat()
    cpu = {"purchase": bench.measure_purchase_cost(EVENT_SIZES[1]), "scan": bench.measure_scan_cost()}
    _keep_costs(costs, at, rates, contended / single, {**cpu, "event page": bench.measure_event_cost()})


def _keep_costs(costs: Costs, at: str, rates: dict[str, Rate], hot_seat: float, cpu: dict[str, Cost]) -> None:
    """Store each cost at this table size: in SQL holds, in empty routes, or as the ratio of the hot seat."""
    found = {f"{name}, in SQL holds": 1 / rate.relative for name, rate in rates.items()}
    found |= {f"CPU per {name}, in empty routes": cost.relative for name, cost in cpu.items()}
    for name, cost in (found | {"hot seat, p99 ÷ p50": hot_seat}).items():
        costs.setdefault(name, {})[at] = cost


def _cpu_row(name: str, cost: Cost, limit_ms: float, target_ms: float, timed: Load | None = None) -> Row:
    """Build the row of a CPU cost. `timed` is a run without counting, whose CPU time is shown as well."""
    used = sorted(cost.load.used.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name.removesuffix('-service')} {amount:.2f}" for name, amount in used if amount >= 0.05)
    raw = f"{cost.load.cost:.2f} ÷ {cost.empty_route:.2f} {cost.unit}: {parts}"
    time_used = f"; CPU time {timed.cost:.1f} ms" if timed else ""
    limit, target = limit_ms / EMPTY_ROUTE_MS, target_ms / EMPTY_ROUTE_MS
    return at_most(f"{name} ÷ empty route", cost.relative, limit, target, raw + time_used)


def _size_rows(name: str, rates: dict[int, Rate], limit: float, target: float) -> list[Row]:
    slowest, shares = min(rate.relative for rate in rates.values()), [rate.share for rate in rates.values()]
    raw = ", ".join(f"{size:,} seats {rate.load.rate:.0f}/s" for size, rate in rates.items())
    return [
        at_least(f"{name} ÷ SQL baseline", slowest, limit, target, raw),
        at_most(f"{name}: fastest ÷ slowest event size", max(shares) / min(shares), 1.2, 1.2),
    ]


def _growth_rows(costs: Costs) -> list[Row]:
    """Build a row for each cost: how far it grows with the number of old rows."""
    rows = []
    for name, by_rows in costs.items():
        base, *others = by_rows.values()
        if others:
            raw = ", ".join(f"{at} {cost:.3g}" for at, cost in by_rows.items())
            rows.append(at_most(f"growth with rows: {name}", max(others) / base, 1.3, 1.1, raw))
    return rows


def _latencies(rate: Rate) -> str:
    load = rate.load
    return f"{load.rate:.0f}/s, p50 {load.percentile(0.5) * 1e3:.1f} ms, p99 {load.percentile(0.99) * 1e3:.1f} ms"


def _write(rows: list[Row], raw: dict[str, Any], keep: bool) -> None:
    REPORTS.mkdir(exist_ok=True)
    report = {**raw, "rows": [row.as_json() for row in rows]}
    slowest, fastest = raw["sql_baseline_range"]
    print(f"\nSQL baseline {slowest:,} to {fastest:,} holds per second. The bench took {raw['seconds']} s.")
    for path in (REPORTS / "bench.json", *([COMMITTED] if keep else [])):
        path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    entry = {"at": raw["at"], "sql_baseline": raw["sql_baseline"], **{row.name: row.measured for row in rows}}
    with (REPORTS / "bench-history.jsonl").open("a") as history:
        history.write(json.dumps(entry) + "\n")
    ratios = {row.name: {"measured": row.measured, "limit": row.limit, "target": row.target} for row in rows}
    (REPORTS / "bench.svg").write_text(dots("Ratios with limit and target", "", ratios))
    used = {flow: {name: much for name, much in by.items() if much > 0.02} for flow, by in raw["cpu"].items()}
    (REPORTS / "bench-cpu.svg").write_text(dots("CPU by process", raw["cpu_unit"], used))


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
