"""`python -m tests.saga.crash.killable_orchestrator`: the real orchestrator, which kills itself at a crash point.

It is built and served as in production. The observer of the saga runner triggers the crash. It reads these variables in
addition to those of `services.orchestrator.main`:

    KILL_AT      crash point as `flow:turn:step`, in which `*` matches anything (default: none)
    KILL_COUNT   number of sagas that must reach the crash point (default: 1). Earlier ones wait there.
    IDLE         names of the background workers that do not run, separated by commas
    JOURNAL      a class of tests/saga/crash/broken_journals.py, for negative controls
"""

from __future__ import annotations

import os
import signal
import threading
from fnmatch import fnmatchcase

from flask import Flask

from services.chassis.serve import serve
from services.chassis.settings import Env, read_or_exit
from services.chassis.worker import Worker
from services.orchestrator.app import Seams, build
from services.orchestrator.saga.definition import Saga
from services.orchestrator.saga.journal import Journal
from services.orchestrator.saga.runner import Observer, ignore_turn
from services.orchestrator.settings import Settings
from tests.saga.crash.broken_journals import BROKEN_JOURNALS


class CrashTrigger:
    """An observer that kills its process group when `count` sagas have reached the crash point `at`."""

    def __init__(self, at: str, count: int) -> None:
        self._at = at
        self._count = count
        self._lock = threading.Lock()

    def __call__(self, turn: str, saga: Saga, step: str) -> None:
        if not fnmatchcase(f"{saga.flow}:{turn}:{step}", self._at):
            return
        with self._lock:
            self._count -= 1
            if self._count == 0:
                os.killpg(os.getpgrp(), signal.SIGKILL)
        threading.Event().wait()  # sagas that arrive early wait here, until the last one kills the process


def _build_observer(env: Env) -> Observer:
    return CrashTrigger(env.text("KILL_AT"), env.integer("KILL_COUNT", 1)) if env.has("KILL_AT") else ignore_turn


def _remove_workers(names: set[str], app: Flask) -> Flask:
    background = app.extensions["background"]
    background[:] = [part for part in background if not (isinstance(part, Worker) and part.name in names)]
    return app


def main() -> None:
    """Serve until the crash."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # the crash kills the whole process group, which must not contain the parent
    env = Env()
    settings = read_or_exit(Settings.read)
    journal = BROKEN_JOURNALS[env.text("JOURNAL")] if env.has("JOURNAL") else Journal
    seams = Seams(observer=_build_observer(env), journal=journal)
    idle = set(env.text("IDLE", " ").split(","))
    serve(settings.process, lambda: _remove_workers(idle, build(settings, seams)))


if __name__ == "__main__":
    main()
