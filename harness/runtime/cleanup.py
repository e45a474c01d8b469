"""Ends what is left of a stack, however it was left, and makes room for the next."""

from __future__ import annotations

import sys

from harness.errors import StackError
from harness.runtime import container_engine, process
from harness.runtime.run_directory import RunDir


def take_down(run_dir: RunDir, volumes: bool = False) -> int:
    """Kill whatever still runs of the stack in `run_dir` and forget it; returns how many processes that were.

    Containers are removed as compose does it. PostgreSQL and RabbitMQ sync what they acknowledge, so that SIGKILL loses
    nothing. `volumes` removes the data.
    """
    found = []
    while run_dir.path.exists() and (
        left := process.find_leftovers(run_dir.path)
    ):  # one may have started another meanwhile
        process.kill_all(left)
        found += left
    container_engine.Project.of(run_dir.path).remove(volumes)
    run_dir.delete_records()
    if volumes:
        run_dir.delete_data()
    return len(found)


def end_leftovers(run_dir: RunDir) -> None:
    """Raises StackError if a stack lives in `run_dir`; ends what a crashed run left there."""
    if run_dir.is_occupied():
        raise StackError(
            f"a stack already runs in {run_dir.path}: `python -m harness status` shows it, `python -m harness down` "
            "ends it, TR_RUN_DIR or --run-dir starts another beside it"
        )
    count = take_down(run_dir)
    if count:
        print(f"ended {count} processes that a crashed run left in {run_dir.path}", file=sys.stderr)
