"""Forks killable orchestrators from one process that has already imported everything.

A forked orchestrator has its own session and environment, and a parent and a worker process like one started with
`python -m tests.saga.crash.killable_orchestrator`. Each fork saves about one second of imports.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from harness.runtime.compose import ROOT
from harness.runtime.process import MARK
from tests.saga.crash import killable_orchestrator

TERM_SECONDS = 15


class ForkServer:
    """The suite's side. Thread-safe."""

    def __init__(self, run_dir: Path) -> None:
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.saga.crash.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, MARK: str(run_dir)},  # so that the harness finds orphans of it
        )

    def start(self, env: Mapping[str, str], log: Path) -> int:
        """Start a orchestrator; its pid. Its output is appended to `log`."""
        return int(self._ask({"env": dict(env), "log": str(log)}))

    def exit_code(self, pid: int) -> int | None:
        """How a orchestrator ended, negative for a signal; None while it lives."""
        answer: int | None = self._ask({"pid": pid})
        return answer

    def kill(self, pid: int) -> None:
        """SIGKILL a orchestrator that may have ended already."""
        self._ask({"pid": pid, "kill": True})

    def close(self) -> None:
        """End the fork_server and all that it started."""
        with self._process:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(TERM_SECONDS)

    def _ask(self, question: Mapping[str, Any]) -> Any:
        with self._lock:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())  # type: ignore[union-attr]


class _Children:
    """The fork_server's side: who was started, and how those ended that did."""

    def __init__(self) -> None:
        self._ended: dict[int, int | None] = {}

    def start(self, env: Mapping[str, str], log: str) -> int:
        pid = os.fork()
        if pid == 0:
            _become_orchestrator(env, log)
        self._ended[pid] = None
        return pid

    def look_at(self, pid: int, kill: bool = False) -> int | None:
        if self._ended[pid] is None:
            if kill:
                os.killpg(pid, signal.SIGKILL)  # not reaped yet, so the id is still this orchestrator's
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._ended[pid] = os.waitstatus_to_exitcode(status)
        return self._ended[pid]

    def end(self) -> None:
        for pid in self._ended:
            self.look_at(pid, kill=True)


def _become_orchestrator(env: Mapping[str, str], log: str) -> None:
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(env)
        killable_orchestrator.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # nothing of the fork_server's own ending may run in a child


def main() -> None:
    """Start and look after killable_orchestrators until the suite hangs up."""
    children = _Children()
    gc.freeze()  # what is imported is nothing that a orchestrator's collector has to look through, and so to copy
    for line in sys.stdin:
        asked = json.loads(line)
        answer = children.look_at(**asked) if "pid" in asked else children.start(**asked)
        print(json.dumps(answer), flush=True)
    children.end()


if __name__ == "__main__":
    main()
