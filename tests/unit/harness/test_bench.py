"""The verdicts, statistics, meters and pictures of the bench."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.bench import meter
from harness.bench.load import build_request
from harness.bench.load_generator import Load
from harness.bench.locking_strategies import percentile
from harness.bench.measure import Cost, summarize
from harness.bench.verdict import Row, Table, at_least, at_most
from harness.report.charts import dots, over_time
from tests.concurrency.figures import Figures

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (at_least("rate", 0.25, 0.18, 0.25), "target"),
        (at_least("rate", 0.18, 0.18, 0.25), "limit"),
        (at_least("rate", 0.17, 0.18, 0.25), "MISSED"),
        (at_most("cpu", 4.5, 7, 4.5), "target"),
        (at_most("cpu", 7, 7, 4.5), "limit"),
        (at_most("cpu", 7.1, 7, 4.5), "MISSED"),
    ],
)
def test_verdict_names_the_best_bound_that_is_met(row: Row, verdict: str) -> None:
    assert row.verdict == verdict
    assert row.as_json()["verdict"] == verdict


def test_table_prints_each_row_with_the_previous_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table({"rate": 0.19})
    table.add(at_least("rate", 0.2, 0.18, 0.25, "3,400/s"))
    cells = capsys.readouterr().out.splitlines()[1].split()
    assert cells == ["rate", "0.2", "0.18", "0.25", "limit", "0.19", "0.0", "s", "3,400/s"]


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
    assert (small.relative, large.relative) == (0.1, 0.09)
    assert small.share / large.share == pytest.approx(100 / 90)


def test_relative_cost_is_a_multiple_of_the_empty_route() -> None:
    load = Load(10, 1.0, {"ok": 10}, [0.1], {"user-service": 20.0, "postgres": 4.0})
    assert Cost(load, 1.5, "M instructions").relative == 16


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
        assert reader.unit == "ms"


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
