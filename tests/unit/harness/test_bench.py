"""The bench's verdicts and its picture; what it measures is no unit's business."""

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
from harness.bench.load import request
from harness.bench.load_generator import Load
from harness.bench.locking_strategies import percentile
from harness.bench.measure import Cost, figure
from harness.bench.verdict import Line, Table, at_least, at_most
from harness.report.charts import dots, over_time
from tests.concurrency.figures import Figures

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (at_least("rate", 0.25, 0.18, 0.25), "reach"),
        (at_least("rate", 0.18, 0.18, 0.25), "gate"),
        (at_least("rate", 0.17, 0.18, 0.25), "MISSED"),
        (at_most("cpu", 4.5, 7, 4.5), "reach"),
        (at_most("cpu", 7, 7, 4.5), "gate"),
        (at_most("cpu", 7.1, 7, 4.5), "MISSED"),
    ],
)
def test_a_gate_is_met_from_its_own_side(line: Line, verdict: str) -> None:
    assert line.verdict == verdict
    assert line.as_json()["verdict"] == verdict


def test_the_table_shows_each_line_as_it_comes_beside_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table({"rate": 0.19})
    table.add(at_least("rate", 0.2, 0.18, 0.25, "3,400/s"))
    shown = capsys.readouterr().out.splitlines()[1].split()
    assert shown == ["rate", "0.2", "0.18", "0.25", "gate", "0.19", "0.0", "s", "3,400/s"]


def run(rate: int, floor: float) -> tuple[Load, float]:
    return Load(rate, 1.0, {"ok": rate}, [1 / rate], {"ours": 1.0}), floor


def test_a_machine_that_is_half_as_fast_for_a_while_changes_no_figure() -> None:
    calm, busy = 1000.0, 500.0
    rounds = [
        [run(100, calm), run(90, calm)],
        [run(50, busy), run(45, busy)],
        [run(100, calm), run(45, busy)],  # it changed in the middle of a round
    ]
    small, large = figure(rounds, 0), figure(rounds, 1)
    assert (small.floors, large.floors) == (0.1, 0.09)
    assert small.share / large.share == pytest.approx(100 / 90)


def test_a_cost_is_so_many_bare_routes() -> None:
    load = Load(10, 1.0, {"ok": 10}, [0.1], {"ours": 20.0, "postgres": 4.0})
    assert Cost(load, 1.5, "M instructions").routes == 16


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
    """A process whose second thread works a little for each line that it is sent."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        _spin(it)
        yield it


def _spin(spinner: subprocess.Popen[str]) -> None:
    print("go", file=spinner.stdin, flush=True)
    assert spinner.stdout is not None
    assert spinner.stdout.readline() == "done\n"


@pytest.mark.parametrize("kind", [meter.Instructions, meter.Clock])
def test_a_meter_reads_what_its_processes_use_and_no_others(
    spinner: subprocess.Popen[str], kind: type[meter.Clock | meter.Instructions]
) -> None:
    try:
        reader = kind({"spinner": psutil.Process(spinner.pid)})
    except OSError as error:
        pytest.skip(f"nobody may count instructions here: {error}")
    before = reader.reading()["spinner"]
    [None for _ in range(5_000_000)]  # ours does not count
    between = reader.reading()["spinner"]
    for _ in range(10):
        _spin(spinner)
    used = reader.reading()["spinner"] - between
    assert between - before <= 0.1 * used
    assert used > 20  # ten million turns of a loop, in millions of instructions or milliseconds


def test_where_nobody_may_count_the_clock_is_read(
    spinner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "_PERF_EVENT_OPEN", {})
    with meter.meter({"spinner": psutil.Process(spinner.pid)}) as reading:
        assert reading.unit == "ms"


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.99, 10), (0.9, 9), (0.01, 1)])
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(share: float, value: int) -> None:
    assert percentile([10, 3, 5, 1, 2, 4, 6, 7, 9, 8], share) == value


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_picture_has_a_dot_a_value_at_places_of_their_own() -> None:
    picture = dots("<a> & b", "ms", {"one": {"p50": 1.0, "p99": 90.0}, "two": {"p50": 3.0}})
    places = re.findall(r'<circle cx="([\d.]+)"[^>]*><title>', picture)
    assert len(set(places)) == 3
    assert "&lt;a&gt; &amp; b" in picture


def test_a_curve_rises_with_its_values() -> None:
    picture = over_time("<a>", 0.5, {"winners": [1, 1, 1], "losers": [0, 5, 10]})
    curves = [re.findall(r"[\d.]+,([\d.]+)", found) for found in re.findall(r'points="([^"]+)"', picture)]
    assert len(set(curves[0])) == 1
    assert sorted(map(float, curves[1]), reverse=True) == [float(y) for y in curves[1]]
    assert ">1.5 s<" in picture


def test_a_part_of_the_suite_replaces_its_own_figures_alone(tmp_path: Path) -> None:
    for number, name in enumerate(("hot seat", "index storm", "hot seat")):
        Figures(tmp_path).add(name, number=number)
    assert json.loads((tmp_path / "concurrency.json").read_text()) == {
        "hot seat": {"number": 2},
        "index storm": {"number": 1},
    }


def test_a_request_is_whole() -> None:
    head, _, body = request("POST", "/api/pay", "t", {"order_id": "o"}).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body == b'{"order_id": "o"}'
