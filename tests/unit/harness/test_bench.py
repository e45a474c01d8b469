"""The verdicts, statistics, meters and pictures of the bench."""

from __future__ import annotations

import heapq
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.bench import meter
from harness.bench.against import COMPARISONS, HOT_SEAT, PURCHASES, build_rows
from harness.bench.checkout import open_worktree
from harness.bench.code_lines import count_lines
from harness.bench.interval import bootstrap_interval
from harness.bench.journals import STEPS
from harness.bench.load import build_request
from harness.bench.load_generator import Load
from harness.bench.locking_strategies import percentile
from harness.bench.measure import Cost, summarize
from harness.bench.queueing import predict_rate, predict_rate_on_cores
from harness.bench.rows import CPU_BOUNDS, Growth
from harness.bench.scaling import ReplicaRound
from harness.bench.verdict import CPU_TIME, INSTRUCTIONS, RATE, Bounds, Row, Table, at_least, at_most
from harness.errors import StackError
from harness.report.charts import dots, over_time
from harness.runtime.compose import ROOT
from services.orchestrator.saga.flows import PAY
from tests.concurrency.figures import Figures

pytestmark = pytest.mark.unit


def make_row(rounds: list[float], bounds: Bounds | None, unit: str = RATE) -> Row:
    return Row("row", rounds, unit, 1, bounds, "3,400/s")


@pytest.mark.parametrize(
    ("rounds", "bounds", "verdict"),
    [
        ([0.25], at_least(0.18, 0.25), "target"),
        ([0.18], at_least(0.18, 0.25), "limit"),
        ([0.17], at_least(0.18, 0.25), "noisy"),
        ([0.17] * 3, at_least(0.18, 0.25), "MISSED"),
        ([4.5], at_most(7, 4.5), "target"),
        ([7], at_most(7, 4.5), "limit"),
        ([7.1, 7.1], at_most(7, 4.5), "noisy"),
        ([7.1] * 3, at_most(7, 4.5), "MISSED"),
        ([7.1], None, "-"),
    ],
)
def test_verdict_names_the_best_bound_that_is_met(rounds: list[float], bounds: Bounds | None, verdict: str) -> None:
    row = make_row(rounds, bounds)
    assert row.verdict == verdict
    assert row.as_json()["verdict"] == verdict


NOISE = [0.80, 0.93, 1.02, 1.07, 1.21]  # a median of 1.02, and an interval of 0.80 to 1.21


@pytest.mark.parametrize("bounds", [at_least(1.05, 1.2), at_most(1.0, 0.7)])
def test_limit_missed_by_noise_alone_does_not_fail(bounds: Bounds) -> None:
    assert make_row(NOISE, bounds).verdict == "noisy"


@pytest.mark.negative_control
@pytest.mark.parametrize("bounds", [at_least(1.25, 1.3), at_most(0.75, 0.7)])
def test_limit_missed_by_the_whole_interval_fails(bounds: Bounds) -> None:
    table = Table({})
    table.add(make_row(NOISE, at_least(0.5, 0.6)))
    assert not table.is_missed
    table.add(make_row(NOISE, bounds))
    assert table.is_missed


def test_interval_covers_the_median_in_19_of_20_samples() -> None:
    """Samples of 15 rounds from a distribution whose median is 1. Fewer rounds give a coverage of about 0.93."""
    draw = random.Random(1)
    intervals = [bootstrap_interval([draw.lognormvariate(0, 0.1) for _ in range(15)]) for _ in range(100)]
    covered = sum(low <= 1 <= high for low, high in intervals) / len(intervals)
    assert 0.9 <= covered <= 0.99


def test_interval_shrinks_with_the_noise_and_repeats() -> None:
    calm = [1 + (value - 1) / 10 for value in NOISE]
    low, high = bootstrap_interval(NOISE)
    assert (low, high) == bootstrap_interval(NOISE) == (0.80, 1.21)
    assert bootstrap_interval(calm) == (pytest.approx(1 + (low - 1) / 10), pytest.approx(1 + (high - 1) / 10))
    assert bootstrap_interval([3.0]) == (3.0, 3.0)
    with pytest.raises(ValueError, match="no rounds"):
        bootstrap_interval([])


def test_table_prints_each_row_with_the_previous_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table({("row", RATE): 0.19})
    table.add(make_row([0.2], at_least(0.18, 0.25)))
    cells = capsys.readouterr().out.splitlines()[1].split()
    assert cells == ["row", "0.2", "0", "%", "rate", "1", "0.18", "0.25", "limit", "0.19", "0.0", "s", "3,400/s"]


def test_clock_and_instructions_are_never_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without hardware counters once failed, because its clock ratios met limits in instructions."""
    table = Table({("CPU per scan ÷ empty route", INSTRUCTIONS): 7.5})
    table.add(Row("CPU per scan ÷ empty route", [30.0], CPU_TIME, 3, CPU_BOUNDS["scan"].get("another unit")))
    assert capsys.readouterr().out.splitlines()[1].split()[-3:] == ["-", "0.0", "s"]
    assert not table.is_missed
    for bounds in CPU_BOUNDS.values():
        assert set(bounds) == {CPU_TIME, INSTRUCTIONS}


def make_run(rate: int, sql_baseline: float) -> tuple[Load, float]:
    return Load(rate, 1.0, {"ok": rate}, [1 / rate], {"user-service": 1.0}), sql_baseline


def test_slower_machine_changes_no_relative_rate() -> None:
    calm, busy = 1000.0, 500.0
    rounds = [
        [make_run(100, calm), make_run(90, calm)],
        [make_run(50, busy), make_run(45, busy)],
        [make_run(100, calm), make_run(45, busy)],  # the load changed within a round
    ]
    small, large = summarize(rounds, 0), summarize(rounds, 1)
    assert (small.relatives, large.relatives) == ([0.1, 0.1, 0.1], [0.09, 0.09, 0.09])
    assert small.shares[0] / large.shares[0] == pytest.approx(100 / 90)


def test_relative_cost_is_a_multiple_of_the_empty_route() -> None:
    load = Load(10, 1.0, {"ok": 10}, [0.1], {"user-service": 20.0, "postgres": 4.0})
    assert Cost([load], [1.5], INSTRUCTIONS, "M").relatives == [16]


def test_only_processes_that_do_a_part_of_the_work_have_served_it() -> None:
    used = {"inventory-service": 5.0, "inventory-service-2": 4.0, "user-service": 0.1, "postgres": 9.0}
    assert Load(10, 1.0, {"ok": 10}, [0.1], used).served_by == 2


def test_growth_divides_each_round_by_the_same_round_of_the_base() -> None:
    growth = Growth()
    for multiple, rounds in ((1, [2.0, 4.0, 2.0]), (10, [2.2, 4.4, 2.2]), (100, [3.0, 6.0, 3.0])):
        growth.add(multiple, "scan", RATE, 3, rounds)
    (row,) = growth.build_rows()
    assert (row.rounds, row.served_by, row.verdict) == ([1.5, 1.5, 1.5], 3, "MISSED")


def test_meter_does_not_charge_a_wait_for_the_idle_use(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    class Idle:
        unit, scale = CPU_TIME, "ms"

        def reading(self) -> dict[str, float]:
            return {"user-service": 40 * now}

    net = meter.NetMeter(Idle(), {"user-service": 40.0})
    before = net.reading()
    now += 60
    assert net.reading() == before


def test_model_of_one_queue_equals_the_closed_formula() -> None:
    """Two clients and one station: the second client waits for the whole service of the first one."""
    assert predict_rate([0.01], 0.0, 2) == pytest.approx(100)
    assert predict_rate([0.01], 0.01, 2) == pytest.approx(2 / (0.01 + 0.01 * 1.5))


@pytest.mark.parametrize(("stations", "clients"), [([0.004, 0.008, 0.002], 16), ([0.004, 0.004], 8)])
def test_model_agrees_with_a_simulation(stations: list[float], clients: int) -> None:
    """The simulation draws exponential times, for which mean value analysis is exact."""
    assert predict_rate(stations, 0.01, clients) == pytest.approx(simulate(stations, 0.01, clients), rel=0.04)


def simulate(stations: list[float], delay: float, clients: int) -> float:
    """Return the rate of clients that each wait, and then queue at every station in turn."""
    draw, busy_until, done, requests = random.Random(7), [0.0] * len(stations), 0, 20_000
    ready = [(draw.expovariate(1 / delay), 0) for _ in range(clients)]  # time, and the number of the next station
    heapq.heapify(ready)
    now = 0.0
    while done < requests:
        now, place = heapq.heappop(ready)
        if place == len(stations):
            done += 1
            heapq.heappush(ready, (now + draw.expovariate(1 / delay), 0))
            continue
        busy_until[place] = max(now, busy_until[place]) + draw.expovariate(1 / stations[place])
        heapq.heappush(ready, (busy_until[place], place + 1))
    return done / now


def test_second_orchestrator_helps_only_with_a_core_for_it() -> None:
    one, two = [0.008, 0.004, 0.003], [0.004, 0.004, 0.004, 0.003]

    def predict(stations: list[float], cores: int) -> float:
        return predict_rate_on_cores(stations, 0.006, 0.005, 16, cores)

    assert predict(two, 16) > 1.5 * predict(one, 16)
    assert predict(two, 2) == pytest.approx(predict(one, 2))
    assert predict(two, 2) <= 2 / (sum(two) + 0.006)


def test_prediction_splits_the_orchestrator_and_shares_the_cores() -> None:
    used = {
        "orchestrator-service": 8.0,
        "orchestrator-service-2": 0.0,
        "user-service": 3.0,
        "postgres": 5.0,
        "load 1": 2.0,
    }
    load = Load(100, 1.0, {"ok": 100}, [0.03], used)
    found = ReplicaRound(load, {1: load})
    assert found.predict(1, 2) == found.predict(2, 2) == pytest.approx(2 / 0.018, rel=0.1)
    assert found.predict(1, 64) == pytest.approx(1 / 0.008, rel=0.05)
    assert found.predict(2, 64) > 1.5 * found.predict(1, 64)


def test_ratio_of_two_checkouts_is_taken_within_a_round() -> None:
    calm = dict.fromkeys([*COMPARISONS], 2.0)
    busy = dict.fromkeys([*COMPARISONS], 8.0)
    pairs = [({**calm, PURCHASES: 3.0}, calm), ({**busy, PURCHASES: 12.0}, busy)]
    rows = {row.name: row for row in build_rows(pairs, dict.fromkeys(COMPARISONS, 4))}
    assert rows[PURCHASES].rounds == [1.5, 1.5]
    assert rows[PURCHASES].verdict == "limit"
    assert rows[f"{HOT_SEAT}, here"].rounds == [2.0, 8.0]


def test_code_lines_are_those_with_more_than_comments() -> None:
    source = (
        '"""A docstring\nof two lines."""\n\n# a comment\nX = """a\nb"""  # of two lines\n\ndef f():\n    """Doc."""\n'
    )
    assert count_lines(source) == 3


def test_worktree_of_a_commit_is_removed_after_its_use(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    with pytest.raises(StackError, match="rev-parse"), open_worktree("no-such-commit", tmp_path):
        pass
    with open_worktree("HEAD", tmp_path) as worktree:
        assert (worktree / "compose.yaml").exists()
    assert not worktree.exists()


def test_saga_of_the_journal_row_has_as_many_steps_as_a_flow() -> None:
    assert len(PAY.steps) == STEPS


SPIN = """
import sys, threading
def work():
    for line in open(0):
        for _ in range(1_000_000): pass
        print("done", flush=True)
threading.Thread(target=work).start()
"""


@pytest.fixture
def spinner() -> Iterator[subprocess.Popen[str]]:
    """A process whose second thread does a million loop turns for each line on its stdin."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        _spin(it)
        yield it


def _spin(spinner: subprocess.Popen[str]) -> None:
    print("go", file=spinner.stdin, flush=True)
    assert spinner.stdout is not None
    assert spinner.stdout.readline() == "done\n"


@pytest.mark.parametrize("kind", [meter.InstructionMeter, meter.CpuTimeMeter])
def test_meter_reads_only_its_own_processes(
    spinner: subprocess.Popen[str], kind: type[meter.CpuTimeMeter | meter.InstructionMeter]
) -> None:
    try:
        reader = kind({"spinner": psutil.Process(spinner.pid)})
    except OSError as error:
        pytest.skip(f"the kernel does not allow counting instructions: {error}")
    before = reader.reading()["spinner"]
    [None for _ in range(5_000_000)]  # work of this process, which the meter must not include
    between = reader.reading()["spinner"]
    for _ in range(10):
        _spin(spinner)
    used = reader.reading()["spinner"] - between
    assert between - before <= 0.1 * used
    assert used > 20  # ten million loop turns, in millions of instructions or milliseconds


def test_cpu_time_is_read_if_counting_is_impossible(
    spinner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_PERF_EVENT_OPEN", {})
    with meter.open_meter({"spinner": psutil.Process(spinner.pid)}) as reader:
        assert reader.unit == CPU_TIME


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.99, 10), (0.9, 9), (0.01, 1)])
def test_percentile_is_the_smallest_value_that_covers_the_share(share: float, value: int) -> None:
    assert percentile([10, 3, 5, 1, 2, 4, 6, 7, 9, 8], share) == value


def test_percentile_of_no_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_dot_chart_places_each_value_separately() -> None:
    picture = dots("<a> & b", "ms", {"one": {"p50": 1.0, "p99": 90.0}, "two": {"p50": 3.0}})
    places = re.findall(r'<circle cx="([\d.]+)"[^>]*><title>', picture)
    assert len(set(places)) == 3
    assert "&lt;a&gt; &amp; b" in picture


def test_curve_rises_with_its_values() -> None:
    picture = over_time("<a>", 0.5, {"winners": [1, 1, 1], "losers": [0, 5, 10]})
    curves = [re.findall(r"[\d.]+,([\d.]+)", found) for found in re.findall(r'points="([^"]+)"', picture)]
    assert len(set(curves[0])) == 1
    assert sorted(map(float, curves[1]), reverse=True) == [float(y) for y in curves[1]]
    assert ">1.5 s<" in picture


def test_marks_of_a_curve_are_numbered_in_time() -> None:
    picture = over_time("a", 0.5, {"winners": [1, 1, 1]}, [(0.5, "kill <user>"), (1.0, "freeze order")])
    places = [float(x) for x in re.findall(r'<line x1="([\d.]+)"', picture)]
    assert places[0] < places[1]
    assert "<title>kill &lt;user&gt;</title>" in picture


def test_partial_run_replaces_only_its_own_figures(tmp_path: Path) -> None:
    for number, name in enumerate(("hot seat", "index storm", "hot seat")):
        Figures(tmp_path).add(name, number=number)
    assert json.loads((tmp_path / "concurrency.json").read_text()) == {
        "hot seat": {"number": 2},
        "index storm": {"number": 1},
    }


def test_request_declares_the_length_of_its_body() -> None:
    head, _, body = build_request("POST", "/api/pay", "t", {"order_id": "o"}).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body == b'{"order_id": "o"}'
