"""The bench's verdicts and its picture; what it measures is no unit's business."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.bench.drive import Load
from harness.bench.load import request
from harness.bench.measure import figure
from harness.bench.pace import Pace
from harness.bench.verdict import Line, Table, at_least, at_most
from harness.charts import dots, over_time
from harness.strategies import percentile
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


def run(rate: int, cpu: float, pace: Pace) -> tuple[Load, Pace]:
    return Load(rate, 1.0, {"ok": rate}, [1 / rate], {"ours": cpu}), pace


def test_a_machine_that_is_half_as_fast_for_a_while_changes_no_figure() -> None:
    calm, busy = Pace(1000, 0.5), Pace(500, 1.0)
    rounds = [
        [run(100, 10, calm), run(90, 11, calm)],
        [run(50, 20, busy), run(45, 22, busy)],
        [run(100, 10, calm), run(45, 22, busy)],  # it changed in the middle of a round
    ]
    small, large = figure(rounds, 0), figure(rounds, 1)
    assert (small.floors, small.routes) == (0.1, 20)
    assert (large.floors, large.routes) == (0.09, 22)
    assert small.share / large.share == pytest.approx(100 / 90)


def test_a_pace_is_taken_from_both_sides() -> None:
    assert Pace(1000, 0.5).halfway(Pace(500, 1.0)) == Pace(750, 0.75)


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
