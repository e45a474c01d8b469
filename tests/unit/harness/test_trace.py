"""The trace of one request from the logs (`make trace ID=…`), and the log lines of one service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from harness.report import trace
from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

ID, OTHER = str(uuid4()), str(uuid4())
SAGA = "pay 0b5c1f0e-7d7a-4c52-9a26-3f3a2f1d9c11"
LOG_LINES = [  # service, millisecond, message, level
    ("orchestrator-service", 0, "POST /api/pay", "INFO"),
    ("orchestrator-service", 2, "→ Inventory gRPC ConfirmSeat", "INFO"),
    ("inventory-service", 4, "Seat s status: HELD → SOLD, order o", "INFO"),
    ("orchestrator-service", 9, f"{SAGA}: DONE", "INFO"),
    ("api-gateway", 11, "POST /api/pay 200 in 11.2 ms → orchestrator-service", "INFO"),
    ("inventory-service", 5000, "Auto-released seat s after TTL expiry: hold h", "WARNING"),
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run directory with the log lines of two requests, and a line that is not JSON."""
    (tmp_path / "logs").mkdir()
    for service, ms, message, level in LOG_LINES:
        stamp = f"2026-11-22T10:00:{ms // 1000:02d}.{ms % 1000:03d}+00:00"
        line = {"timestamp": stamp, "level": level, "service": service, "correlation_id": ID, "message": message}
        with (tmp_path / "logs" / f"{service}.log").open("a") as log:
            log.write(json.dumps(line | {"correlation_id": OTHER, "message": "another request"}) + "\n")
            log.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    (tmp_path / "logs" / "postgres.log").write_text(f"LOG: not JSON {ID}\n")
    return tmp_path


@pytest.mark.claim("log/find-by-correlation", "correlation/one-id-everywhere")
def test_trace_shows_the_lines_of_all_services_in_time_order(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main([ID[:8], "--run-dir", str(run_dir)]) == 0
    heading, *lines = capsys.readouterr().out.strip().splitlines()
    assert heading.startswith(f"{ID} · 2026-11-22 10:00:00 · 6 lines in 5000 ms")
    assert [line.split()[2] for line in lines] == [
        "orchestrator", "orchestrator", "inventory", "journal", "gateway", "broker",
    ]  # fmt: skip
    assert [int(line.split()[0]) for line in lines] == [0, 2, 4, 9, 11, 5000]
    assert "WARNING Auto-released" in lines[-1]
    assert "another request" not in "".join(lines)


def test_unknown_id_is_an_error(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main([str(uuid4()), "--run-dir", str(run_dir)]) == 1
    assert "no log in" in capsys.readouterr().err


def test_trace_finds_requests_of_the_demo_in_its_subfolder(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "demo").mkdir()
    (run_dir / "logs").rename(run_dir / "demo" / "logs")
    assert trace.main([ID, "--run-dir", str(run_dir)]) == 0
    assert "6 lines" in capsys.readouterr().out


def test_exception_is_shown_below_its_line(run_dir: Path) -> None:
    line = {"timestamp": "2026-11-22T10:00:00+00:00", "level": "ERROR", "service": "user-service"}
    text = json.dumps(line | {"correlation_id": ID, "message": "unhandled", "exception": "Traceback\n  bug"})
    (run_dir / "logs" / "user-service.log").write_text(text)
    lines = trace.find_requests([run_dir / "logs" / "user-service.log"], {ID}.__contains__)
    assert [text.strip() for text in trace.format_lines(lines[ID])] == [
        "0 ms  user          ERROR unhandled",
        "Traceback",
        "bug",
    ]


def test_logs_command_prints_the_lines_of_one_service(run_dir: Path) -> None:
    command = [sys.executable, "-m", "harness", "--run-dir", str(run_dir), "logs", "inventory-service"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output == (run_dir / "logs" / "inventory-service.log").read_text()
