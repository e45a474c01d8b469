"""`make bench`: measure rates relative to the SQL baseline, and CPU relative to an empty route.

    python -m harness.bench [--rows 1,10,100] [--seconds S] [--rounds N] [--keep-baseline]
    python -m harness.bench --against REF [--seconds S] [--rounds N]

It writes reports/bench.json and pictures, and appends to reports/bench-history.jsonl. With `--against`, it compares
this checkout with that of a commit and writes reports/bench-against.json. The exit status is 1 when the whole interval
of a ratio misses its limit, and 2 when the system could not be measured. Its systems start in the run directory with
empty databases.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from statistics import mean
from typing import Any

from harness import runtime
from harness.bench import against, journals, scaling, stress
from harness.bench.against import PRODUCTION
from harness.bench.empty_route import serve_empty_route
from harness.bench.fixtures import BASE_ROWS, Fixtures
from harness.bench.leftovers import Leftovers
from harness.bench.load_generator import LoadGenerator
from harness.bench.measure import Bench
from harness.bench.rows import MIDDLE, BaseFigures, Growth, measure_base, measure_multiple, show_latencies
from harness.bench.runs import Runs
from harness.bench.sql_baseline import MAX_CLIENTS, measure_rate
from harness.bench.system import INVENTORY, ORCHESTRATOR
from harness.bench.verdict import RATE, Key, Row, Table, at_least
from harness.command_line import run_main
from harness.errors import StackError
from harness.report.charts import dots
from harness.runtime.compose import ROOT
from harness.runtime.signals import interrupt_once
from harness.runtime.stack import Stack

REPORTS = ROOT / "reports"
COMMITTED = REPORTS / "bench-baseline.json"
SECONDS, AGAINST_SECONDS, ROUNDS = 1.5, 3.0, 5


def main(arguments: list[str]) -> int:
    """Measure, print each row at once, write the reports and return the exit status."""
    options = _parse(arguments)
    interrupt_once()
    start = time.monotonic()
    try:
        table, raw = _compare(options) if options.against else _measure(options)
    except StackError as error:
        print(f"could not measure: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    raw |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(time.monotonic() - start)}
    raw |= {"cores": os.cpu_count(), "rounds": options.rounds, "rows": [row.as_json() for row in table.rows]}
    print(f"\nThe bench took {raw['seconds']} s.")
    _write(table, raw, options)
    return 1 if table.is_missed else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.bench")
    parser.add_argument("--against", metavar="REF", help="compare with the system of this commit, branch or tag")
    parser.add_argument("--rows", default="1,10,100", help="table sizes in multiples of 5,000 rows, the base first")
    parser.add_argument("--seconds", type=float, help=f"length of a run (default: {SECONDS}, or {AGAINST_SECONDS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each figure (default: {ROUNDS})")
    parser.add_argument("--keep-baseline", action="store_true", help="write this run to bench-baseline.json, too")
    return parser.parse_args(arguments)


def _compare(options: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    table = against.compare(options.against, options.seconds or AGAINST_SECONDS, options.rounds)
    return table, {"against": options.against}


def _measure(options: argparse.Namespace) -> tuple[Table, dict[str, Any]]:
    table = Table(_read_committed())
    with (
        runtime.up_fresh("bench", PRODUCTION, quiet=True) as stack,
        LoadGenerator() as load_generator,
        serve_empty_route(stack, load_generator) as empty_route,
    ):
        table.note("system up")
        runs = Runs(stack, Fixtures(stack), Leftovers(stack), load_generator, options.seconds or SECONDS)
        return table, _measure_all(Bench(runs, empty_route, options.rounds), stack, options.rows, table)


def _read_committed() -> dict[Key, float]:
    rows = json.loads(COMMITTED.read_text())["rows"] if COMMITTED.exists() else []
    return {(row["name"], row.get("unit", "")): row["measured"] for row in rows}


def _measure_all(bench: Bench, stack: Stack, sizes: str, table: Table) -> dict[str, Any]:
    base, *multiples = [int(text) for text in sizes.split(",")]
    fixtures, growth = bench.runs.fixtures, Growth()
    fixtures.create_buyers()
    fixtures.grow(BASE_ROWS * base)
    for warm_up in (bench.runs.reserve_seat(), bench.runs.purchase(MIDDLE), bench.runs.scan()):
        warm_up()  # because the first second of a process is slow
    table.note("warmed up")
    figures = measure_base(bench, base, growth, table)
    table.add(stress.measure_mixed_sale(bench), stress.measure_outbox(bench))
    table.add(*stress.measure_login_flood(bench))
    if (dbos := journals.measure_dbos(bench)) is None:
        table.note("no row about DBOS: `pip install dbos` adds it")
    else:
        table.add(dbos)
    scaling_figures = _measure_replicas(bench, stack, figures, table)
    for multiple in multiples:
        fixtures.grow(BASE_ROWS * multiple)
        table.note(f"{multiple}× the rows inserted")
        measure_multiple(Bench(bench.runs, bench.empty_route, max(1, bench.rounds - 2)), multiple, growth)
        table.note(f"{multiple}× measured")
    turns = [{m: measure_rate(stack, BASE_ROWS * m, MAX_CLIENTS) for m in (base, *multiples)} for _ in range(3)]
    for multiple in (base, *multiples):
        growth.add(multiple, "SQL baseline, ms", RATE, 0, [1000 / turn[multiple] for turn in turns])
    table.add(*growth.build_rows())
    baselines = figures.purchase.baselines
    return {
        "sql_baseline": round(mean(baselines)),
        "sql_baseline_range": [round(min(baselines)), round(max(baselines))],
        "cpu": {name: cost.load.used for name, cost in figures.cpu.items()},
        "cpu_unit": figures.purchase_cost.scale,
        "scaling": scaling_figures,
    }


def _measure_replicas(bench: Bench, stack: Stack, figures: BaseFigures, table: Table) -> dict[str, Any]:
    """Add the rows about two processes of Inventory and of the orchestrator. The replicas run only meanwhile."""
    second = stack.start_replica(INVENTORY)
    grpc, name = bench.measure_reserve_seat(2), "ReserveSeat over gRPC, two processes ÷ SQL baseline"
    stack.stop(second)
    table.add(Row(name, grpc.relatives, RATE, grpc.load.served_by, at_least(0.1, 0.25), show_latencies(grpc.load)))
    second = stack.start_replica(ORCHESTRATOR)
    bench.runs.purchase(MIDDLE, orchestrators=2)()  # because the first second of a process is slow
    rounds = scaling.measure_replicas(bench)
    stack.stop(second)
    table.add(*scaling.build_replica_rows(rounds, os.cpu_count() or 1))
    return scaling.collect_figures(bench, rounds, figures.cpu["event page of 1,000 seats"])


def _write(table: Table, report: dict[str, Any], options: argparse.Namespace) -> None:
    REPORTS.mkdir(exist_ok=True)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if options.against:
        (REPORTS / "bench-against.json").write_text(text)
        return
    for path in (REPORTS / "bench.json", *([COMMITTED] if options.keep_baseline else [])):
        path.write_text(text)
    entry = {"at": report["at"], "sql_baseline": report["sql_baseline"]}
    with (REPORTS / "bench-history.jsonl").open("a") as history:
        history.write(json.dumps(entry | {f"{row.name} ({row.unit})": row.measured for row in table.rows}) + "\n")
    ratios = {row.name: _list_values(row) for row in table.rows}
    (REPORTS / "bench.svg").write_text(dots("Ratios with limit and target", "", ratios))
    used = {flow: {name: much for name, much in by.items() if much > 0.02} for flow, by in report["cpu"].items()}
    (REPORTS / "bench-cpu.svg").write_text(dots("CPU by process", report["cpu_unit"], used))


def _list_values(row: Row) -> dict[str, float]:
    bounds = {"limit": row.bounds.limit, "target": row.bounds.target} if row.bounds else {}
    return {"measured": row.measured, **bounds}


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
