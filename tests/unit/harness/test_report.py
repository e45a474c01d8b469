"""Claims, markers and the report page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.report import claims, figures, page
from harness.report.results import Results
from harness.runtime.compose import ROOT
from tests.claims import memory

pytestmark = pytest.mark.unit

CLAIMS = claims.by_id()
BUILT = [claim.id for claim in CLAIMS.values() if not claim.open]
TEST = "tests/e2e/test_purchase.py::test_a_seat_is_reserved_and_paid_for"
CORRELATION = "235fa006-67d0-4a37-8a0b-df57f7bf2b1f"


def run(outcome: str = "passed", *, carried: list[str] = BUILT, failures: Any = ()) -> dict[str, Any]:
    """Return the record of a run of one test that carries these claims."""
    return {
        "began": "2026-11-22T10:00:00+00:00", "seconds": 763.0, "exit": int(outcome == "failed"), "command": "pytest",
        "commit": "abc", "whole": True, "machine": {"cores": "2"}, "selected": 1, "not_run": [],
        "tests": {TEST: [outcome, 1.0]}, "claims": {claim: [TEST] for claim in carried}, "controls": [],
        "failures": list(failures), "invariants": {}, "memory": {"peak": 0, "during": ""},
    }  # fmt: skip


def draw(directory: Path, **files: Any) -> str:
    """Write these files and return their page."""
    for name, content in files.items():
        (directory / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
    return page.write(directory).read_text()


def first_screen(text: str) -> str:
    """Return the text of the page before the claims."""
    return re.sub(r"<[^>]+>", "", text[text.index("<header>") : text.index("<nav>")])


# ── the data


def test_departures_and_claims_name_each_other() -> None:
    named = {claim.departs for claim in CLAIMS.values() if claim.departs}
    rows = claims.departures()
    assert named == rows.keys()
    assert [row.id for row in rows.values() if not (row.here and row.because)] == []


def test_every_section_of_the_reference_has_claims() -> None:
    assert {claim.section.split(".")[0] for claim in CLAIMS.values()} == {str(section) for section in range(1, 16)}


def test_claims_are_sentences() -> None:
    assert [claim.text for claim in CLAIMS.values() if len(claim.text.split()) > 25 or claim.text[-1] != "."] == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{ id = "a/b", text = "A.", depart = "D1" }', "unknown keys .* depart"),
        ('{ id = "a/b", text = "A." }, { id = "a/b", text = "B." }', "a/b"),
        ('{ id = "5.matrix.3", text = "A." }', r"5\.matrix\.3"),
    ],
    ids=["unknown key", "id twice", "no topic"],
)
def test_malformed_claim_is_an_error(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(f'[[groups]]\ntitle = "A"\nsection = "1"\nclaims = [{rows}]\n')
    with pytest.raises(ValueError, match=message):
        claims.groups(path)


# ── the plugin, in a project of its own


def run_pytest(project: Path, *options: str, marker: str = "", body: str = "pass") -> subprocess.CompletedProcess[str]:
    """Run pytest over a project with one test."""
    (project / "suite").mkdir(exist_ok=True)
    (project / "pytest.ini").write_text(
        "[pytest]\ntestpaths = suite\naddopts = --strict-markers\nmarkers =\n    negative_control\n"
    )
    (project / "suite" / "conftest.py").write_text('pytest_plugins = ["tests.claims.plugin"]\n')
    marked = f"import pytest\n{marker}\ndef test_it():\n    {body}\n"
    (project / "suite" / "test_only.py").write_text(marked)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def carrying(*ids: str) -> str:
    """A marker that names these claims."""
    return f"@pytest.mark.claim({', '.join(map(repr, ids))})"


def test_unknown_claim_aborts_the_run(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "suite/test_only.py", marker=carrying("gate/nothing"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unknown claim gate/nothing: suite/test_only.py::test_it" in done.stderr


def test_claim_without_a_test_aborts_full_runs_only(tmp_path: Path) -> None:
    missing = "pay/keeps-hold-without-credits"
    marker = carrying(*(claim for claim in BUILT if claim != missing))
    whole = run_pytest(tmp_path, "--report=reports", marker=marker)
    assert whole.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"no test carries {missing}: {CLAIMS[missing].text}" in whole.stderr
    assert missing in first_screen((tmp_path / "reports" / "index.html").read_text())
    assert run_pytest(tmp_path, "suite/test_only.py", marker=marker).returncode == 0


def test_page_is_written_when_a_test_fails(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--report=reports", marker=carrying(*BUILT), body="assert not 'reserved'")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.fullmatch(r"=+ 1 failed in .+ =+", done.stdout.strip().splitlines()[-1])
    shown = first_screen((tmp_path / "reports" / "index.html").read_text())
    assert "1 test failed" in shown
    assert ".venv/bin/python -m pytest suite/test_only.py::test_it" in shown


def test_a_whole_run_that_passes_proves_what_is_built(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--report=reports", marker=carrying(*BUILT))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"=+ 1 passed in .+ =+", done.stdout.strip().splitlines()[-1])
    assert f"{len(BUILT)} of {len(CLAIMS)} claims" in first_screen((tmp_path / "reports" / "index.html").read_text())


def test_run_records_tests_with_the_control_marker(tmp_path: Path) -> None:
    """The name of a test does not make it a control. The marker does."""
    body = "pass\n@pytest.mark.negative_control\ndef test_that():\n    pass\ndef test_defect_is_caught():\n    pass"
    assert run_pytest(tmp_path, "--report=reports", "suite/test_only.py", body=body).returncode == 0
    written = json.loads((tmp_path / "reports" / "run.json").read_text())
    assert written["controls"] == ["suite/test_only.py::test_that"]


# ── memory


def test_memory_is_the_peak_of_all_processes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = "kept = bytearray(b'x' * 2**27); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", fill], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with_child = memory.proportional(psutil.Process())
        child.communicate(b"\n")
    assert with_child - memory.proportional(psutil.Process()) > 2**27
    monkeypatch.setattr(memory, "EVERY_SECONDS", 0.001)
    seen = iter([1, 3, 2])
    over = threading.Event()

    def sample(_leader: psutil.Process) -> int:
        figure = next(seen, 0)
        if not figure:
            over.set()
        return figure

    monkeypatch.setattr(memory, "proportional", sample)
    watch = memory.Memory()
    assert over.wait(10)
    watch.close()
    assert watch.peak == 3


KEEPS = """
import psutil
from tests.claims.memory import give_back
kept = [bytes(2000) for _ in range(100_000)]
last = kept[-1]  # at the heap's end, so that what is before it stays
del kept
held = psutil.Process().memory_info().rss
give_back()
print(held, psutil.Process().memory_info().rss)
"""


def test_memory_that_is_free_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", KEEPS], cwd=ROOT, capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held - left > 100 * 2**20


def test_memory_past_the_limit_is_warned_of(tmp_path: Path) -> None:
    for peak, warned in ((page.MEMORY_LIMIT, False), (page.MEMORY_LIMIT + 1, True)):
        text = draw(tmp_path, run={**run(), "memory": {"peak": peak, "during": TEST}})
        assert ('<dd class="look">1,536<small> MiB' in text, '<dd class="">1,536<small> MiB' in text) == (
            warned,
            not warned,
        )


# ── the verdict


def test_a_claim_whose_test_failed_is_not_proven() -> None:
    results = Results(run("failed", carried=["reserve/post-reserve"]))
    assert not results.stands
    assert {judged.claim.id: judged.verdict for judged in results.judged}["reserve/post-reserve"] == "failed"


@pytest.mark.parametrize(("outcome", "verdict"), [("skipped", "not run"), ("passed", "proven")])
def test_a_test_that_was_skipped_proves_nothing(outcome: str, verdict: str) -> None:
    judged = {judged.claim.id: judged.verdict for judged in Results(run(outcome)).judged}
    assert {judged[claim] for claim in BUILT} == {verdict}


def test_claim_without_a_test_is_untested_in_full_runs_only() -> None:
    for whole, verdict in ((False, "not run"), (True, "untested")):
        results = Results({**run(carried=[]), "whole": whole})
        assert {judged.verdict for judged in results.judged} - {"open"} == {verdict}


def test_what_failed_is_named_before_what_did_not_run() -> None:
    results = Results({**run("failed", carried=["testing/postman-collection"]), "whole": False})
    assert results.unproven[0].claim.id == "testing/postman-collection"


def test_one_failure_among_many_cases_is_a_failed_claim() -> None:
    whole = run(carried=["reserve/post-reserve"])
    whole["tests"][f"{TEST}[2]"] = ["failed", 1.0]
    whole["claims"]["reserve/post-reserve"].append(f"{TEST}[2]")
    assert {j.claim.id: j.verdict for j in Results(whole).judged}["reserve/post-reserve"] == "failed"


# ── the page


def test_the_page_is_one_file_that_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text = draw(tmp_path, run=run())
    assert not re.search(r"<script|<link|<iframe|src=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert 'name="viewport"' in text
    assert len(text) < 1_000_000


def test_what_has_not_been_written_is_said(tmp_path: Path) -> None:
    text = draw(tmp_path, run=run())
    for name in ("saga.json", "concurrency.json", "contract.json", "mutants.json", "bench.json", "coverage.json"):
        assert f"reports/{name} is missing. Run `make " in text, name


def test_failure_is_shown_with_its_replay_and_log_lines(tmp_path: Path) -> None:
    request = {"id": CORRELATION, "asked": "POST /api/pay → 503", "lines": ["0 ms  gateway  <pay>"]}
    failure = {"test": TEST, "when": "call", "replay": f"pytest {TEST}", "text": "a < b", "requests": [request]}
    text = draw(tmp_path, run=run("failed", failures=[failure]))
    assert f"pytest {TEST}" in first_screen(text)
    assert "0 ms  gateway  &lt;pay&gt;" in text
    assert CORRELATION in text


def test_a_cell_that_is_not_as_declared_is_red(tmp_path: Path) -> None:
    good = {"flow": "pay", "faults": ["journal end: 5xx"], "code": "3D", "wrong": [], "violations": [], "unfired": []}
    bad = {**good, "faults": ["journal end: no connection"], "code": "5U", "wrong": ["declared 3D"]}
    saga = {"executions": 2, "cells": 2, "pairs": 0, "undeclared": [], "unreached": [], "singles": [good, bad]}
    text = draw(tmp_path, run=run(), saga=saga)
    assert '<td class="D">3D</td>' in text
    assert '<td class="U wrong">5U</td>' in text


def test_coverage_is_told_by_service(tmp_path: Path) -> None:
    files = {
        "services/user/a.py": {"summary": {"num_statements": 30, "covered_lines": 30}},
        "services/user/b.py": {"summary": {"num_statements": 10, "covered_lines": 0}},
    }
    text = draw(tmp_path, run=run(), coverage={"files": files})
    assert '<td>user</td><td class="r">40</td><td class="r">75 %</td>' in text


@pytest.mark.claim("testing/coverage-per-service")
def test_tests_of_one_service_can_be_run_with_coverage(tmp_path: Path) -> None:
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "data"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    measured = ["run", "--source=services", "-m", "pytest", "-q", "tests/unit/orchestrator/test_scan_rules.py"]
    for command in (measured, ["json", "-q", "-o", str(tmp_path / "coverage.json")]):
        asked = [sys.executable, "-m", "coverage", *command]
        subprocess.run(asked, cwd=ROOT, env=environment, check=True, capture_output=True)
    told = json.loads((tmp_path / "coverage.json").read_text())
    assert told["files"]["services/orchestrator/tickets/scan_rules.py"]["summary"]["percent_covered"] > 95
    assert {service for service, _, share in figures.coverage(told) or [] if share} >= {"orchestrator", "contracts"}


def test_a_mutant_that_survived_is_red(tmp_path: Path) -> None:
    caught = {"mutant": {"name": "no NOWAIT"}, "trouble": "", "caught_by": "tests/unit/test_x.py::test_y"}
    survived = {"mutant": {"name": "no fence"}, "trouble": "survived", "caught_by": ""}
    text = draw(tmp_path, run=run(), mutants={"seeds": [], "mutants": [caught, survived]})
    assert "1 / 2 caught" in text
    assert '<span class="bad">✗</span> no fence' in text


def test_report_counts_the_controls_that_ran_by_their_marker() -> None:
    control, other = "tests/saga/test_a.py::test_b", "tests/saga/test_a.py::test_defect_is_caught"
    tests = {f"{control}[1]": ["passed", 1.0], f"{control}[2]": ["failed", 1.0], other: ["passed", 1.0]}
    marked = [f"{control}[{number}]" for number in (1, 2, 3)]
    counted = figures.controls(None, Results({**run(), "tests": tests, "controls": marked}))
    assert (counted.tests, counted.caught, counted.planted) == ([("saga/test_a.py::test_b", 2, 1)], 1, 2)


@pytest.mark.parametrize(("before", "warned"), [(0.25, False), (0.21, False), (0.20, True), (0.40, True)])
def test_a_ratio_that_moved_more_than_a_fifth_is_warned_of(tmp_path: Path, before: float, warned: bool) -> None:
    row = {"name": "ReserveSeat ÷ SQL baseline", "measured": 0.25, "limit": 0.18, "verdict": "target", "raw": ""}
    text = draw(tmp_path, run=run(), bench={"rows": [row]}, bench_baseline={"rows": [{**row, "measured": before}]})
    assert ("⚠" in text) == warned
