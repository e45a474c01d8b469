"""Every command ends silently when the reader of its output has gone, as in `| head`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import command_line
from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

GUARD = re.compile(r'^if __name__ == "__main__":\n(?P<body>(?: {4}.*\n)+)', re.MULTILINE)
LOG = (
    '{"timestamp": "2026-01-01T00:00:00.000Z", "service": "user-service", "level": "INFO", "message": "x", '
    '"correlation_id": "abcdef12-0000-4000-8000-000000000000"}\n'
)
PRINTS_NOTHING = {  # or is started by another program, which reads its output to the end
    "harness/bench/load.py",
    "harness/bench/workflows.py",
    "harness/dev/api_reference.py",
    "harness/dev/grpc_codegen.py",
    "harness/dev/reload.py",
    "tests/contract/protos.py",
    "tests/mutants/worker.py",
    "tests/saga/crash/fork_server.py",
    "tests/saga/crash/killable_orchestrator.py",
}


def run_without_reader(command: list[str], **env: str) -> tuple[int, str]:
    """Run `command` with a closed pipe as its output. Returns its exit status and its errors."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env={**os.environ, **env}, stdout=writing, stderr=subprocess.PIPE,
            text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "command",
    [
        "-m harness --run-dir {tmp} status",
        "-m harness up --help",
        "-m harness.report.trace --run-dir {tmp} abcdef12",
        "-m harness.dev.prose {root}/README.md",
        "-m services.orchestrator.admin show --help",
        "-m tests.mutants --help",
    ],
)
def test_closed_pipe_is_no_traceback(command: str, unbuffered: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "user-service.log").write_text(LOG)
    words = command.format(tmp=tmp_path, root=ROOT).split()
    status, errors = run_without_reader(words, PYTHONUNBUFFERED=unbuffered)
    assert errors == ""
    assert status == command_line.READER_GONE or (status == 0 and "--help" in words), "argparse ignores the error"


def test_command_that_prints_a_log_is_ended_by_the_closed_pipe(tmp_path: Path) -> None:
    """`tail` and `cat` would complain if they inherited that Python ignores SIGPIPE."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "user-service.log").write_text(LOG)
    status, errors = run_without_reader(["-m", "harness", "--run-dir", str(tmp_path), "logs", "user-service"])
    assert (status, errors) == (-13, "")


def test_broken_connection_is_not_taken_for_a_lost_reader(capfd: pytest.CaptureFixture[str]) -> None:
    script = "from harness.command_line import run_main\ndef main(): raise BrokenPipeError('a socket')\nrun_main(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a socket" in done.stderr


def test_every_command_ends_through_run_main() -> None:
    commands = {
        str(path.relative_to(ROOT)): found["body"]
        for folder in ("harness", "tests", "services/orchestrator")
        for path in (ROOT / folder).rglob("*.py")
        if (found := GUARD.search(path.read_text())) and path.name != "main.py"
    }
    assert {name for name, body in commands.items() if "run_main(" not in body} == PRINTS_NOTHING
