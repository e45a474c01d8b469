"""Start the system of compose.yaml or attach to a running one. Only this module chooses the kind of stack."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.errors import StackError
from harness.runtime import compose, container_engine, ports, variables
from harness.runtime.cleanup import end_leftovers, take_down
from harness.runtime.cluster import ClusterStack
from harness.runtime.containers import ContainerStack
from harness.runtime.native import NativeStack
from harness.runtime.process import Identity
from harness.runtime.progress import print_line
from harness.runtime.run_directory import Record, RunDir, default_path
from harness.runtime.stack import COMPOSE, Stack

KINDS: dict[str, type[Stack]] = {kind.kind: kind for kind in (NativeStack, ClusterStack, ContainerStack)}


def up(
    run_dir: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
    detach: bool = False,
    quiet: bool = False,
    overrides: Mapping[str, Mapping[str, str]] | None = None,
    wanted: str | None = None,
) -> Stack:
    """Start everything, or `only` the named services with their dependencies, and wait until it is ready.

    `env` sets variables of compose.yaml. `overrides` changes the environment of single processes. As a context manager,
    the stack is taken down at the end, and its data stays in `run_dir` (default: TR_RUN_DIR, else .run). `wanted`, or
    the variable STACK, selects native processes, a cluster (`ha`) or containers. Raises StackError and leaves nothing
    running.
    """
    only = list(only) if only else None
    choice = container_engine.choose(wanted)
    kind = KINDS[choice.kind]
    directory = RunDir(run_dir)
    with directory.lock():
        end_leftovers(directory)
        directory.create()
        values = variables.resolve(directory.read_variables(), env or {}, compose.variables_of(COMPOSE))
        print_ignored_settings(values, env or {})
        services = kind.load_services(values)
        kind.install_missing(services, only)
        assigned = kind.assign_ports(services, directory)
        directory.write_variables(values)
        directory.write_stack(choice.kind, assigned, None if detach else Identity.of(os.getpid()))
        ports.register(directory)
        for name, changed in (overrides or {}).items():
            directory.write_record(Record(name, overrides=dict(changed)))
    stack = kind(directory, assigned, values, quiet)
    stack.report(choice.kind, choice.reason)
    stack.start_with_needs(only)
    return stack


def print_ignored_settings(values: Mapping[str, str], given: Iterable[str]) -> None:
    """Print a line for the settings in the environment and in .env that a stack with `values` does not use."""
    environments = (service.environment for service in compose.load(COMPOSE, values).values())
    names = compose.variables_of(COMPOSE).union(*environments)
    if ignored := variables.find_ignored(values, given, names):
        print_line(
            f"not used: {', '.join(f'{name} ({source})' for name, source in ignored.items())}. "
            "`python -m harness up --env NAME=VALUE` sets a variable of compose.yaml. "
            "`restart SERVICE --env NAME=VALUE` sets any other."
        )


def attach(run_dir: Path | str | None = None, quiet: bool = False) -> Stack:
    """Return the stack that already runs in `run_dir`.

    Raises StackError if no stack runs there, or if it was started from another compose.yaml.
    """
    directory = RunDir(run_dir)
    description = directory.read_stack()
    if description is None or not directory.is_occupied():
        raise StackError(f"no stack runs in {directory.path}. Start it with `python -m harness up`.")
    assigned = {name: {int(p): here for p, here in own.items()} for name, own in description["ports"].items()}
    values = directory.read_variables()
    kind = KINDS[description["kind"]]
    if assigned.keys() != kind.load_services(values).keys():
        raise StackError(
            "the services of compose.yaml changed since the start. Stop the stack with `python -m harness down`."
        )
    return kind(directory, assigned, values, quiet)


@contextmanager
def up_fresh(name: str, env: Mapping[str, str], quiet: bool = False) -> Iterator[Stack]:
    """Start a separate system in the folder `name` of the run directory, with empty databases.

    The system is taken down at the end. Raises StackError.
    """
    directory = RunDir(default_path() / name)
    end_leftovers(directory)
    take_down(directory, volumes=True)
    with up(directory.path, env=env, quiet=quiet) as stack:
        yield stack


__all__ = ["Stack", "attach", "up", "up_fresh"]
