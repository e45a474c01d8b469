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
    """The client of the fork server. Thread-safe."""

    def __init__(self, run_dir: Path) -> None:
        self._lock = Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.saga.crash.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, MARK: str(run_dir)},  # so that the harness finds leftover processes
        )

    def start(self, env: Mapping[str, str], log: Path) -> int:
        """Start an orchestrator and return its pid. Its output is appended to `log`."""
        return int(self._call({"env": dict(env), "log": str(log)}))

    def exit_code(self, pid: int) -> int | None:
        """The exit code of an orchestrator, negative for a signal, or None while it runs."""
        code: int | None = self._call({"pid": pid})
        return code

    def kill(self, pid: int) -> None:
        """Send SIGKILL to an orchestrator, unless it has exited already."""
        self._call({"pid": pid, "kill": True})

    def close(self) -> None:
        """Stop the fork server and all orchestrators that it started."""
        with self._process:
            self._process.stdin.close()  # type: ignore[union-attr]
            self._process.wait(TERM_SECONDS)

    def _call(self, request: Mapping[str, Any]) -> Any:
        with self._lock:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())  # type: ignore[union-attr]


class _Children:
    """The orchestrators that the fork server has started, with their exit codes."""

    def __init__(self) -> None:
        self._exit_codes: dict[int, int | None] = {}

    def start(self, env: Mapping[str, str], log: str) -> int:
        pid = os.fork()
        if pid == 0:
            _become_orchestrator(env, log)
        self._exit_codes[pid] = None
        return pid

    def poll(self, pid: int, kill: bool = False) -> int | None:
        if self._exit_codes[pid] is None:
            if kill:
                os.killpg(pid, signal.SIGKILL)  # the pid cannot be reused before waitpid
            exited, status = os.waitpid(pid, os.WNOHANG)
            if exited:
                self._exit_codes[pid] = os.waitstatus_to_exitcode(status)
        return self._exit_codes[pid]

    def kill_all(self) -> None:
        for pid in self._exit_codes:
            self.poll(pid, kill=True)


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
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # a child must not run the exit handlers of the fork server


def main() -> None:
    """Answer requests on stdin until it is closed, then kill all orchestrators."""
    children = _Children()
    gc.freeze()  # else a garbage collection in a child copies the memory of all imports
    for line in sys.stdin:
        request = json.loads(line)
        response = children.poll(**request) if "pid" in request else children.start(**request)
        print(json.dumps(response), flush=True)
    children.kill_all()


if __name__ == "__main__":
    main()
