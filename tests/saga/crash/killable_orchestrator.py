"""`python -m tests.saga.crash.killable_orchestrator`: the real orchestrator, which SIGKILLs itself at a turn of a saga.

It is put together and served as production does it; crash_point comes from the observer that the runner has anyway.
Environment, beside that of `services.orchestrator.main`:

KILL_AT     `flow:turn:step`, `*` in it matches anything; without it the process lives
KILL_COUNT  so many sagas have to stand at that turn first (1); those that come early wait there
IDLE        background work that this process leaves to others, by its workers' names, with commas between
JOURNAL     a broken journal of tests/saga/crash/broken_journals.py, for the negative controls
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
    """An observer that ends its process group when `count` sagas stand at the turn `at`."""

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
        threading.Event().wait()  # nothing runs after crash_point; whoever came early dies here with the last


def _observer(env: Env) -> Observer:
    return CrashTrigger(env.text("KILL_AT"), env.integer("KILL_COUNT", 1)) if env.has("KILL_AT") else ignore_turn


def _without(idle: set[str], app: Flask) -> Flask:
    background = app.extensions["background"]
    background[:] = [part for part in background if not (isinstance(part, Worker) and part.name in idle)]
    return app


def main() -> None:
    """Serve until crash_point."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # crash_point takes the whole group, and must not take whoever started this
    env = Env()
    settings = read_or_exit(Settings.read)
    journal = BROKEN_JOURNALS[env.text("JOURNAL")] if env.has("JOURNAL") else Journal
    seams = Seams(observer=_observer(env), journal=journal)
    idle = set(env.text("IDLE", " ").split(","))
    serve(settings.process, lambda: _without(idle, build(settings, seams)))


if __name__ == "__main__":
    main()
