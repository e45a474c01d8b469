"""End all processes of a stack, also after a crash, so that the next one can start."""

from __future__ import annotations

import sys

from harness.errors import StackError
from harness.runtime import container_engine, process
from harness.runtime.run_directory import RunDir


def take_down(run_dir: RunDir, volumes: bool = False) -> int:
    """Kill every process of the stack in `run_dir`, delete its records and return the number of killed processes.

    Compose removes the containers. SIGKILL loses no data, because PostgreSQL and RabbitMQ sync before they acknowledge.
    `volumes` deletes the data, too. Raises StackError if the directory cannot be written.
    """
    run_dir.check_writable()
    killed = []
    # A process may start another one while it is being killed, so the search is repeated.
    while run_dir.path.exists() and (left := process.find_leftovers(run_dir.path)):
        process.kill_all(left)
        killed += left
    container_engine.Project.of(run_dir.path).remove(volumes)
    run_dir.delete_records()
    if volumes:
        run_dir.delete_data()
    return len(killed)


def end_leftovers(run_dir: RunDir) -> None:
    """End the processes that a crashed run left in `run_dir`. Raises StackError if a stack still runs there."""
    if run_dir.is_occupied():
        raise StackError(
            f"a stack already runs in {run_dir.path}. `python -m harness status` shows it and `python -m harness down` "
            "stops it. To run a second stack, set TR_RUN_DIR or --run-dir to another directory."
        )
    count = take_down(run_dir)
    if count:
        print(f"killed {count} processes that a crashed run left in {run_dir.path}", file=sys.stderr)
