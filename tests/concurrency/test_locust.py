"""A short locust run, whose exit status reports the invariants, and the live dashboard in a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import urllib3

from harness import invariants
from harness.report.charts import over_time
from harness.runtime.compose import ROOT
from tests.concurrency.figures import REPORTS, Figures
from tests.support.browser import DESKTOP, PHONE, open_page, record_problems, run_playwright, take_screenshot
from tests.support.system import TestSystem

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.concurrency
SEATS = 120
SALE = ["--calm", "8", "--stampede", "16", "--every", "4", "--rush", "2"]
LOAD_SECONDS, WALL_SECONDS = 8, 30.0
STEP_SECONDS = 0.5
START_SECONDS, END_SECONDS = 20.0, 30.0


@pytest.fixture
def load(system: TestSystem, tmp_path: Path) -> dict[str, str]:
    """The environment of a load that uses its own seats."""
    seats = tmp_path / "seats.json"
    seats.write_text(json.dumps([system.seat() for _ in range(SEATS)]))
    variables = {"LOAD_SEATS": str(seats), "LOAD_REPORT": str(tmp_path / "report.json")}
    return {**os.environ, **variables, "TR_RUN_DIR": str(system.stack.run_dir.path)}


def run_locust(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run locust without its web UI until it ends."""
    command = [sys.executable, "-m", "locust", "-f", "tests/concurrency/locustfile.py", "--headless", "--only-summary"]
    return subprocess.run(
        [*command, *SALE, *options],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=WALL_SECONDS,
    )


@pytest.mark.claim("testing/load-on-contention")
def test_sale_under_load_keeps_every_invariant(system: TestSystem, load: dict[str, str], figures: Figures) -> None:
    done = run_locust(load, "--lasts", str(LOAD_SECONDS))
    report = json.loads(Path(load["LOAD_REPORT"]).read_text())
    assert (done.returncode, report["violations"]) == (0, []), done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "every invariant holds", "the verdict is the last line"
    assert "pool is full" not in done.stderr
    counted = {name for name, number in report["counts"].items() if number}
    expected = {"held", "paid", "lost", "abandoned", "transferred", "admitted", "refunded", "hot seats won"}
    assert expected | {"lost the stampede"} <= counted, report
    assert "admitted twice" not in counted
    figures.add("locust", seconds=LOAD_SECONDS, **report["counts"])
    figures.save_picture("winners-and-losers", draw_reserves(report["reserves"]))
    assert not invariants.find_violations(system.connect, at_any_time=True)


def draw_reserves(reserves: list[tuple[float, bool]]) -> str:
    """Draw how many reserves won and lost a seat in each half second."""
    steps = range(int(max(at for at, _ in reserves) / STEP_SECONDS) + 1)
    counted = Counter((int(at / STEP_SECONDS), won) for at, won in reserves)
    series = {name: [counted[step, won] for step in steps] for name, won in (("winners", True), ("losers", False))}
    return over_time(f"A sale with stampedes: winners and losers per {STEP_SECONDS:g} s", STEP_SECONDS, series)


@pytest.mark.negative_control
def test_locust_exits_with_1_if_an_invariant_is_broken(system: TestSystem, load: dict[str, str]) -> None:
    person = system.person()
    change = "UPDATE users SET credit_balance = credit_balance + %s WHERE user_id = %s"
    system.rows("users_db", change, 1, person.user_id)
    try:
        done = run_locust({**load, "LOAD_REST_SECONDS": "0"}, "--lasts", "1")
    finally:
        system.rows("users_db", change, -1, person.user_id)
    report = json.loads(Path(load["LOAD_REPORT"]).read_text())
    assert done.returncode == 1
    assert any(line.startswith("i2_balances_are_their_entries") for line in report["violations"])
    assert done.stdout.splitlines()[-1] == f"{len(report['violations'])} invariants are broken"


def test_locust_does_not_patch_this_process() -> None:
    assert "locust" not in sys.modules
    assert (socket.socket.__module__, type(threading.Lock()).__module__) == ("socket", "_thread")


# ── the dashboard


@contextmanager
def run_dashboard(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the dashboard and the locust web UI on the running stack. Yields the process and both URLs."""
    command = [sys.executable, "-m", "harness.dashboard", "--attach", environment["TR_RUN_DIR"], "--", *SALE]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines: Queue[str] = Queue()
        reader = threading.Thread(target=_read_output, args=(process, lines))
        reader.start()
        try:
            yield process, {name: _find_url(lines) for name in ("dashboard", "locust")}
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(END_SECONDS)
            reader.join()


def _read_output(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    for line in process.stdout or ():
        lines.put(line)


def _find_url(lines: Queue[str]) -> str:
    while True:
        line = lines.get(timeout=START_SECONDS)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]


def test_dashboard_shows_a_live_sale_and_ends_with_ctrl_c(system: TestSystem, load: dict[str, str]) -> None:
    with run_playwright() as launch, run_dashboard(load) as (process, urls):
        page = open_page(launch(), DESKTOP)
        problems = record_problems(page)
        start_sale(system, urls["locust"])
        assert system.stack.url("api-gateway").encode() in urllib3.request("GET", urls["locust"]).data
        page.goto(urls["dashboard"] + "/")
        system.wait_until("seats are held and sold", lambda: all(count_seats(page, kind) for kind in "HS"))
        system.wait_until(
            "reserves have won and lost", lambda: read_total(page, "winners") > 0 and read_total(page, "losers") > 0
        )
        system.wait_until("all four invariants hold", lambda: read_verdicts(page).count("✓") == 4)
        total = page.evaluate("[...document.querySelectorAll('#legend b')].reduce((sum, b) => sum + +b.textContent, 0)")
        assert total == page.evaluate("cells.length") == 5_000
        assert page.evaluate("$('error').textContent") == ""
        assert (
            page.evaluate("getComputedStyle(document.querySelector('#map i.S')).backgroundColor") == "rgb(58, 134, 216)"
        )
        assert_hall_fills_the_window(page)
        take_screenshot(page, REPORTS / "concurrency-live.png")
        assert_violation_is_shown(system, page)
        children = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(END_SECONDS) == 0
        system.wait_until("the page reports the stop", lambda: "has stopped" in page.evaluate("$('error').textContent"))
        assert problems == []
    assert children
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert system.is_healthy()


def assert_hall_fills_the_window(page: Page) -> None:
    """Assert that a phone and a screen show all seats, that the curve has an axis, and that free seats are visible."""
    for width, height in (PHONE, (640, 900), DESKTOP):
        page.set_viewport_size({"width": width, "height": height})
        seats = page.evaluate(
            "cells.map(cell => cell.getBoundingClientRect()).map(box => [box.left, box.right, box.width * box.height])"
        )
        assert min(left for left, _, _ in seats) >= 0
        assert max(right for _, right, _ in seats) <= width
        assert min(area for _, _, area in seats) > 8, f"a seat is too small to see at {width} px"
        assert sum(area for _, _, area in seats) > 0.25 * width * height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    marks = page.locator("#axis li").all_inner_texts()
    assert float(marks[0]) == 2 * float(marks[1]) > float(marks[2]) == 0
    assert contrast(page, "#map i.A", "main section") >= 3


def contrast(page: Page, one: str, other: str) -> float:
    """Return the contrast ratio of two backgrounds by the formula of WCAG."""
    lights = sorted(luminance(read_colour(page, which)) for which in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def read_colour(page: Page, selector: str) -> list[int]:
    """Return the background of the first element of `selector` as red, green and blue."""
    query = "which => getComputedStyle(document.querySelector(which)).backgroundColor.match(/\\d+/g).map(Number)"
    return list(page.evaluate(query, selector))


def luminance(colour: list[int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour[:3])]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def assert_violation_is_shown(system: TestSystem, page: Page) -> None:
    """Change a balance by hand, and assert that the page shows the broken invariant with its user."""
    person = system.person()
    change = "UPDATE users SET credit_balance = credit_balance + %s WHERE user_id = %s"
    system.rows("users_db", change, 1, person.user_id)
    system.wait_until(
        "the page is red", lambda: page.evaluate("document.querySelector('.broken')?.dataset.invariant") == "I2"
    )
    system.rows("users_db", change, -1, person.user_id)
    assert person.email in page.evaluate("document.querySelector('.broken .rule').textContent")


def start_sale(system: TestSystem, url: str) -> None:
    """Start the load like the button of the locust web UI."""

    def try_start() -> Any:
        try:
            return urllib3.request("POST", f"{url}/swarm", fields={}, retries=False).json()["success"]
        except urllib3.exceptions.HTTPError:
            return False  # the web UI is not up yet

    system.wait_until("locust has started", try_start)


def count_seats(page: Page, kind: str) -> int:
    return int(page.evaluate(f"document.querySelectorAll('#map i.{kind}').length"))


def read_total(page: Page, series: str) -> float:
    return float(page.evaluate(f"$('so-far').textContent.match(/([\\d.]+) {series}/)?.[1] ?? 0"))


def read_verdicts(page: Page) -> str:
    return str(page.evaluate("[...document.querySelectorAll('.verdict')].map(cell => cell.textContent[0]).join('')"))


def descendants(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
