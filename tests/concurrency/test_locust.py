"""The load in small, and the show beside it: locust in a process of its own, its exit status that of the invariants."""

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
from typing import Any

import psutil
import pytest
import urllib3

from harness import invariants
from harness.report.charts import over_time
from harness.runtime.compose import ROOT
from tests.concurrency import browser
from tests.concurrency.browser import Browser
from tests.concurrency.figures import REPORTS, Figures
from tests.support.system import TestSystem

pytestmark = pytest.mark.concurrency
SEATS = 120
SALE = ["--calm", "8", "--stampede", "16", "--every", "4", "--rush", "2"]
LOAD_SECONDS, WALL_SECONDS = 8, 30.0
STEP_SECONDS = 0.5
START_SECONDS, END_SECONDS = 20.0, 30.0


@pytest.fixture
def load(system: TestSystem, tmp_path: Path) -> dict[str, str]:
    """The environment of a load on seats of its own."""
    seats = tmp_path / "seats.json"
    seats.write_text(json.dumps([system.seat() for _ in range(SEATS)]))
    given = {"LOAD_SEATS": str(seats), "LOAD_REPORT": str(tmp_path / "report.json")}
    return {**os.environ, **given, "TR_RUN_DIR": str(system.stack.run_dir.path)}


def locust(environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """A headless run to its end."""
    command = [sys.executable, "-m", "locust", "-f", "tests/concurrency/locustfile.py", "--headless", "--only-summary"]
    return subprocess.run(
        [*command, *SALE, *more],
        cwd=ROOT,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=WALL_SECONDS,
    )


@pytest.mark.claim("testing/load-on-contention")
def test_sale_under_load_keeps_every_invariant(system: TestSystem, load: dict[str, str], figures: Figures) -> None:
    done = locust(load, "--lasts", str(LOAD_SECONDS))
    said = json.loads(Path(load["LOAD_REPORT"]).read_text())
    assert (done.returncode, said["broken"]) == (0, []), done.stderr[-2000:]
    happened = {name for name, times in said["tally"].items() if times}
    wanted = {"held", "paid", "lost", "abandoned", "transferred", "admitted", "refunded", "hot seats won"}
    assert wanted | {"lost the stampede"} <= happened, said
    assert "admitted twice" not in happened
    figures.add("locust", seconds=LOAD_SECONDS, **said["tally"])
    figures.save_picture("winners-and-losers", won_and_lost(said["reserves"]))
    assert not invariants.find_violations(system.connect, at_any_time=True)


def won_and_lost(reserves: list[tuple[float, bool]]) -> str:
    """A picture of how many of them won a seat and how many lost one, every half second."""
    steps = range(int(max(at for at, _ in reserves) / STEP_SECONDS) + 1)
    counted = Counter((int(at / STEP_SECONDS), won) for at, won in reserves)
    series = {name: [counted[step, won] for step in steps] for name, won in (("winners", True), ("losers", False))}
    return over_time(f"A sale with stampedes: winners and losers every {STEP_SECONDS:g} s", STEP_SECONDS, series)


@pytest.mark.negative_control
def test_load_that_leaves_an_invariant_broken_exits_with_1(system: TestSystem, load: dict[str, str]) -> None:
    person = system.person()
    change = "UPDATE users SET credit_balance = credit_balance + %s WHERE user_id = %s"
    system.rows("users_db", change, 1, person.user_id)
    try:
        done = locust({**load, "LOAD_REST_SECONDS": "0"}, "--lasts", "1")
    finally:
        system.rows("users_db", change, -1, person.user_id)
    said = json.loads(Path(load["LOAD_REPORT"]).read_text())
    assert done.returncode == 1
    assert any(line.startswith("i2_balances_are_their_entries") for line in said["broken"])


def test_locust_has_patched_nothing_in_here() -> None:
    assert "locust" not in sys.modules
    assert (socket.socket.__module__, type(threading.Lock()).__module__) == ("socket", "_thread")


# ── the show


@contextmanager
def show(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The page and locust's web UI on the running stack, and where they are."""
    command = [sys.executable, "-m", "harness.dashboard", "--attach", environment["TR_RUN_DIR"], "--", *SALE]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines: Queue[str] = Queue()
        reader = threading.Thread(target=_read, args=(process, lines))
        reader.start()
        try:
            yield process, {name: _address(lines) for name in ("hall", "locust")}
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(END_SECONDS)
            reader.join()


def _read(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    for line in process.stdout or ():
        lines.put(line)


def _address(lines: Queue[str]) -> str:
    while True:
        line = lines.get(timeout=START_SECONDS)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]


def test_show_has_the_hall_live_in_a_browser_and_ends_with_ctrl_c(
    system: TestSystem, load: dict[str, str], tmp_path: Path
) -> None:
    program = browser.found()
    if program is None:
        pytest.skip("NO BROWSER: the live page was not looked at (apt-get install chromium)")
    with show(load) as (process, at), Browser(program) as page:
        swarm(system, at["locust"])
        page.open(at["hall"] + "/")
        system.wait_until("seats are held and sold", lambda: all(seen(page, kind) for kind in "HS"))
        system.wait_until(
            "somebody won and somebody lost", lambda: number(page, "winners") > 0 and number(page, "losers") > 0
        )
        system.wait_until("all four tick", lambda: verdicts(page).count("✓") == 4)
        told = page.js("[...document.querySelectorAll('#legend b')].reduce((sum, one) => sum + +one.textContent, 0)")
        assert told == page.js("cells.length") == 5_000
        assert page.js("$('trouble').textContent") == ""
        assert page.js("getComputedStyle(document.querySelector('#map i.S')).backgroundColor") == "rgb(58, 134, 216)"
        page.screenshot(REPORTS / "concurrency-live.png")
        broken(system, page)
        children = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(END_SECONDS) == 0
        system.wait_until("the page says so", lambda: "has stopped" in page.js("$('trouble').textContent"))
    assert children
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert system.is_healthy()


def broken(system: TestSystem, page: Browser) -> None:
    """A balance that is off shows in red while it is."""
    person = system.person()
    change = "UPDATE users SET credit_balance = credit_balance + %s WHERE user_id = %s"
    system.rows("users_db", change, 1, person.user_id)
    system.wait_until(
        "the page is red", lambda: page.js("document.querySelector('.broken')?.dataset.invariant") == "I2"
    )
    system.rows("users_db", change, -1, person.user_id)
    assert person.email in page.js("document.querySelector('.broken .says').textContent")


def swarm(system: TestSystem, url: str) -> None:
    """What the button of locust's web UI does."""

    def started() -> Any:
        try:
            return urllib3.request("POST", f"{url}/swarm", fields={}, retries=False).json()["success"]
        except urllib3.exceptions.HTTPError:
            return False  # not up yet

    system.wait_until("locust has started", started)


def seen(page: Browser, kind: str) -> int:
    return int(page.js(f"document.querySelectorAll('#map i.{kind}').length"))


def number(page: Browser, series: str) -> float:
    return float(page.js(f"$('so-far').textContent.match(/([\\d.]+) {series}/)?.[1] ?? 0"))


def verdicts(page: Browser) -> str:
    return str(page.js("[...document.querySelectorAll('.verdict')].map(one => one.textContent[0]).join('')"))


def descendants(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
