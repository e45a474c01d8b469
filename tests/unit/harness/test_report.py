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

from harness.bench.verdict import CPU_TIME, RATE, Row, at_least, at_most
from harness.report import claims, figures, page
from harness.report.results import Results
from harness.runtime.compose import ROOT
from tests.claims import memory
from tests.mutants.__main__ import build_entry
from tests.mutants.mutant import Mutant
from tests.mutants.runs import Finding

pytestmark = pytest.mark.unit

CLAIMS = claims.read_claims()
BUILT = [claim.id for claim in CLAIMS.values() if not claim.open]
TEST = "tests/e2e/test_purchase.py::test_a_seat_is_reserved_and_paid_for"
CORRELATION = "235fa006-67d0-4a37-8a0b-df57f7bf2b1f"


def run(outcome: str = "passed", *, carried: list[str] = BUILT, failures: Any = ()) -> dict[str, Any]:
    """Return the record of a run of one test that carries these claims."""
    return {
        "began": "2026-11-22T10:00:00+00:00", "seconds": 763.0, "exit": int(outcome == "failed"), "command": "pytest",
        "commit": "abc", "full_run": True, "machine": {"cores": "2"}, "selected": 1, "not_run": [],
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
    rows = claims.read_departures()
    assert named == rows.keys()
    assert [row.id for row in rows.values() if not (row.here and row.because)] == []


def test_departure_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "departures.md"
    page.write_text("| D1 | 5 | a | b | c |\n| D1 | 6 | d | e | f |\n")
    with pytest.raises(ValueError, match="D1"):
        claims.read_departures(page)


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
        claims.read_groups(path)


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


def make_marker(*ids: str) -> str:
    """Return the source of a marker with these claims."""
    return f"@pytest.mark.claim({', '.join(map(repr, ids))})"


def test_unknown_claim_aborts_the_run(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "suite/test_only.py", marker=make_marker("gate/nothing"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unknown claim gate/nothing: suite/test_only.py::test_it" in done.stderr


def test_claim_without_a_test_aborts_full_runs_only(tmp_path: Path) -> None:
    missing = "pay/keeps-hold-without-credits"
    marker = make_marker(*(claim for claim in BUILT if claim != missing))
    full_run = run_pytest(tmp_path, "--report=reports", marker=marker)
    assert full_run.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"no test carries {missing}: {CLAIMS[missing].text}" in full_run.stderr
    assert missing in first_screen((tmp_path / "reports" / "index.html").read_text())
    assert run_pytest(tmp_path, "suite/test_only.py", marker=marker).returncode == 0


def test_page_is_written_when_a_test_fails(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--report=reports", marker=make_marker(*BUILT), body="assert not 'reserved'")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.fullmatch(r"=+ 1 failed in .+ =+", done.stdout.strip().splitlines()[-1])
    shown = first_screen((tmp_path / "reports" / "index.html").read_text())
    assert "1 test failed" in shown
    assert ".venv/bin/python -m pytest suite/test_only.py::test_it" in shown


def test_full_run_that_passes_proves_every_built_claim(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--report=reports", marker=make_marker(*BUILT))
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
        with_child = memory.measure_pss(psutil.Process())
        child.communicate(b"\n")
    assert with_child - memory.measure_pss(psutil.Process()) > 2**27
    monkeypatch.setattr(memory, "EVERY_SECONDS", 0.001)
    seen = iter([1, 3, 2])
    over = threading.Event()

    def sample(_leader: psutil.Process) -> int:
        figure = next(seen, 0)
        if not figure:
            over.set()
        return figure

    monkeypatch.setattr(memory, "measure_pss", sample)
    watch = memory.MemoryMonitor()
    assert over.wait(10)
    watch.close()
    assert watch.peak == 3


KEEPS_FREE_MEMORY = """
import psutil
from tests.claims.memory import return_free_memory
kept = [bytes(2000) for _ in range(100_000)]
last = kept[-1]  # keeps the end of the heap in use, so glibc does not return the memory before it
del kept
held = psutil.Process().memory_info().rss
return_free_memory()
print(held, psutil.Process().memory_info().rss)
"""


def test_free_memory_is_returned_to_the_system() -> None:
    command = [sys.executable, "-c", KEEPS_FREE_MEMORY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held - left > 100 * 2**20


@pytest.mark.parametrize(("peak", "style"), [(page.MEMORY_LIMIT, ""), (page.MEMORY_LIMIT + 1, "look")])
def test_memory_past_the_limit_is_highlighted(tmp_path: Path, peak: int, style: str) -> None:
    text = draw(tmp_path, run={**run(), "memory": {"peak": peak, "during": TEST}})
    assert f'<dd class="{style}">1,536<small> MiB' in text


# ── the verdict


def verdicts(results: Results) -> dict[str, str]:
    """Return the verdict of each claim."""
    return {result.claim.id: result.verdict for result in results.claims}


@pytest.mark.parametrize(("outcome", "verdict"), [("skipped", "not run"), ("passed", "proven")])
def test_skipped_test_proves_nothing(outcome: str, verdict: str) -> None:
    found = verdicts(Results(run(outcome)))
    assert {found[claim] for claim in BUILT} == {verdict}


def test_claim_without_a_test_is_untested_in_full_runs_only() -> None:
    for is_full_run, verdict in ((False, "not run"), (True, "untested")):
        results = Results({**run(carried=[]), "full_run": is_full_run})
        assert set(verdicts(results).values()) - {"open"} == {verdict}


def test_failed_claims_come_before_claims_that_did_not_run() -> None:
    results = Results({**run("failed", carried=["testing/postman-collection"]), "full_run": False})
    assert results.unproven[0].claim.id == "testing/postman-collection"


def test_one_failed_case_fails_its_claim() -> None:
    one_failure = run()
    one_failure["tests"][f"{TEST}[2]"] = ["failed", 1.0]
    one_failure["claims"]["reserve/post-reserve"] = [TEST, f"{TEST}[2]"]
    results = Results(one_failure)
    assert verdicts(results)["reserve/post-reserve"] == "failed"
    assert not results.is_proven
    assert Results(run()).is_proven


# ── the page


def test_page_is_one_file_without_scripts_or_network_access(tmp_path: Path) -> None:
    text = draw(tmp_path, run=run())
    assert not re.search(r"<script|<link|<iframe|src=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert 'name="viewport"' in text
    assert "12 min 43 s" in first_screen(text)
    assert len(text) < 1_000_000


def test_page_names_missing_files_and_their_commands(tmp_path: Path) -> None:
    text = draw(tmp_path, run=run())
    for name in ("saga", "concurrency", "contract", "access", "mutants", "bench", "coverage"):
        assert f"reports/{name}.json is missing. Run `make " in text, name


def test_failure_is_shown_with_its_replay_and_log_lines(tmp_path: Path) -> None:
    request = {"id": CORRELATION, "summary": "POST /api/pay → 503", "lines": ["0 ms  gateway  <pay>"]}
    failure = {"test": TEST, "when": "call", "replay": f"pytest {TEST}", "text": "a < b", "requests": [request]}
    text = draw(tmp_path, run=run("failed", failures=[failure]))
    assert f"pytest {TEST}" in first_screen(text)
    assert "0 ms  gateway  &lt;pay&gt;" in text
    assert CORRELATION in text


def test_cell_with_an_unexpected_outcome_is_red(tmp_path: Path) -> None:
    good = {"flow": "pay", "faults": ["journal end: 5xx"], "code": "3D", "wrong": [], "violations": [], "unfired": []}
    bad = {**good, "faults": ["journal end: no connection"], "code": "5U", "wrong": ["declared 3D"]}
    saga = {"executions": 2, "cells": 2, "pairs": 0, "undeclared": [], "unreached": [], "singles": [good, bad]}
    text = draw(tmp_path, run=run(), saga=saga)
    assert '<td class="D">3D</td>' in text
    assert '<td class="U wrong">5U</td>' in text


def test_pairs_of_flows_show_their_schedules_and_wrong_ones(tmp_path: Path) -> None:
    """A cell adds the searches of its pair. An exception darkens it, and a failing schedule makes it red."""
    search = {"a": "pay", "b": "scan", "schedules": 6, "exceptions": {}, "failures": []}
    excused = {**search, "b": "refund", "exceptions": {"a reason": 2}}
    searches = {"one": search, "two": {**search, "failures": ["a schedule"]}, "three": excused}
    totals = {"pairs": 2, "schedules": 18, "distinct_end_states": 4, "wrong": 1, "exceptions": {"a reason": 2}}
    text = draw(tmp_path, run=run(), interleavings={**totals, "searches": searches})
    assert '<td><code>pay</code></td><td class="D wrong">12</td><td class="U">6</td>' in text
    assert '<td>a reason</td><td class="r">2</td>' in text


def test_findings_of_a_soak_are_red(tmp_path: Path) -> None:
    act = {"act": "kill user-service", "at": 7.5, "restored_after": 2.5, "saga_seconds": 0.5, "key_seconds": 0.0}
    soak = {
        "seed": 7,
        "seconds": 60.0,
        "requests": 2000,
        "acts": [act],
        "counts": {"kill": 1},
        "not_run": {"full disk": "no"},
    }
    facts = {"orders": 9, "transfers": 8, "payments": 7, "admissions": 6}
    text = draw(tmp_path, run=run(), chaos={**soak, "facts": facts, "findings": ["lost order: <o1>"]})
    assert '<span class="bad">1 findings</span>' in text
    assert "lost order: &lt;o1&gt;" in text
    assert "kill user-service" in text
    assert "not run: no" in text


def test_page_shows_coverage_by_service(tmp_path: Path) -> None:
    files = {
        "services/user/a.py": {"summary": {"num_statements": 30, "covered_lines": 30}},
        "services/user/b.py": {"summary": {"num_statements": 10, "covered_lines": 0}},
    }
    text = draw(tmp_path, run=run(), coverage={"files": files})
    assert '<td>user</td><td class="r">40</td><td class="r">75 %</td>' in text


@pytest.mark.claim("testing/coverage-per-service")
def test_tests_of_one_service_can_be_run_with_coverage(tmp_path: Path) -> None:
    environment = {**os.environ, "COVERAGE_FILE": str(tmp_path / "data"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    measure = ["run", "--source=services", "-m", "pytest", "-q", "tests/unit/orchestrator/test_scan_rules.py"]
    for options in (measure, ["json", "-q", "-o", str(tmp_path / "coverage.json")]):
        command = [sys.executable, "-m", "coverage", *options]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    coverage = json.loads((tmp_path / "coverage.json").read_text())
    assert coverage["files"]["services/orchestrator/tickets/scan_rules.py"]["summary"]["percent_covered"] > 95
    covered = {service for service, _, share in figures.sum_coverage(coverage) or [] if share}
    assert covered >= {"orchestrator", "contracts"}


def test_mutant_that_survived_is_red(tmp_path: Path) -> None:
    caught, survived = (Mutant(name, "", "", (), (), "order") for name in ("no NOWAIT", "no fence"))
    other = "tests/unit/test_x.py::test_z"
    entries = [
        build_entry(Finding(caught, caught_by="tests/unit/test_x.py::test_y"), other),
        build_entry(Finding(survived, problem="survived"), "no other"),
    ]
    text = draw(tmp_path, run=run(), mutants={"seeds": [], "mutants": entries})
    assert "1 / 2 caught" in text
    assert f"<small>tests/unit/test_x.py::test_y and {other}</small>" in text
    assert '<span class="bad">✗</span> no fence' in text


def test_report_counts_the_controls_that_ran_by_their_marker() -> None:
    control, other = "tests/saga/test_a.py::test_b", "tests/saga/test_a.py::test_defect_is_caught"
    tests = {f"{control}[1]": ["passed", 1.0], f"{control}[2]": ["failed", 1.0], other: ["passed", 1.0]}
    marked = [f"{control}[{number}]" for number in (1, 2, 3)]
    counted = figures.count_controls(None, Results({**run(), "tests": tests, "controls": marked}))
    assert (counted.tests, counted.caught, counted.total) == ([("saga/test_a.py::test_b", 2, 1)], 1, 2)


@pytest.mark.parametrize(("before", "has_warning"), [(0.25, False), (0.21, False), (0.20, True), (0.40, True)])
def test_ratio_that_changed_by_over_20_percent_has_a_warning(tmp_path: Path, before: float, has_warning: bool) -> None:
    row = Row("ReserveSeat ÷ SQL baseline", [0.25], RATE, 1, at_least(0.18, 0.25)).as_json()
    text = draw(tmp_path, run=run(), bench={"rows": [row]}, bench_baseline={"rows": [{**row, "measured": before}]})
    assert ("⚠" in text) == has_warning
    assert "≥ 0.18" in text


def test_bench_row_of_another_unit_is_not_compared(tmp_path: Path) -> None:
    row = Row("CPU per scan ÷ empty route", [30.0], CPU_TIME, 3, at_most(40, 20)).as_json()
    committed = {"rows": [{**row, "unit": "instructions", "measured": 7.5}]}
    text = draw(tmp_path, run=run(), bench={"rows": [row]}, bench_baseline=committed)
    assert "⚠" not in text
    assert '<td>CPU time</td><td class="r ">30</td>' in text


def test_report_shows_the_comparison_with_another_commit(tmp_path: Path) -> None:
    row = Row("CPU per purchase", [0.5, 0.6, 0.7], CPU_TIME, 4, at_most(0.65, 0.5), "9 ÷ 15 ms").as_json()
    text = draw(tmp_path, run=run(), bench_against={"against": "v1", "at": "2026-11-29T02:00:00", "rows": [row]})
    assert "Compared with v1" in text
    assert '<td class="r">0.6</td><td class="r">0.5 – 0.7</td><td class="r">4</td><td class="r">≤ 0.65</td>' in text
