"""`python -m harness`: start, inspect and stop the stack from the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from harness import runtime
from harness.command_line import run_main
from harness.errors import StackError
from harness.runtime import backup, compose, container_engine, installed, node_packages, packages, variables
from harness.runtime.cleanup import take_down
from harness.runtime.progress import print_line
from harness.runtime.run_directory import RunDir
from harness.runtime.signals import interrupt_once
from harness.runtime.stack import COMPOSE, Stack
from harness.runtime.web_client import NAME as WEB_CLIENT

WATCH_SECONDS = 1.0


def main() -> int:
    """Parse the command line, run the command and return the exit status."""
    options = _parser().parse_args()
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "setup": _setup,
        "env": lambda given: print(variables.render_example(compose.ROOT / ".env.example"), end=""),
        "up": _up,
        "down": _down,
        "status": _status,
        "logs": _logs,
        "start": _start,
        "stop": lambda given: runtime.attach(given.run_dir).stop(given.service),
        "kill": lambda given: runtime.attach(given.run_dir).kill(given.service),
        "restart": _restart,
        "exec": _exec,
        "backup": _backup,
        "restore": lambda given: backup.restore(given.folder, RunDir(given.run_dir), given.at),
    }
    try:
        commands[options.command](options)
    except StackError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    parser.add_argument("--run-dir", help="directory of logs, data and state (default: $TR_RUN_DIR, else .run)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="install RabbitMQ, etcd, Chromium and npm packages, and list what is installed")
    commands.add_parser("env", help="print .env.example with fresh secrets (save it as .env for `docker compose`)")
    up = commands.add_parser("up", help="start everything and run until Ctrl-C")
    up.add_argument("--detach", action="store_true", help="return when everything is ready and leave it running")
    up.add_argument("--ha", action="store_true", help="start a cluster, with three nodes of each database and broker")
    up.add_argument(
        "--only", action="append", metavar="SERVICE", help="start only this service and its dependencies (repeatable)"
    )
    _add_env_option(up, "set a variable of compose.yaml")
    down = commands.add_parser("down", help="stop everything and keep the data")
    down.add_argument("--volumes", action="store_true", help="delete the data, too")
    status = commands.add_parser("status", help="print the state and address of each process")
    status.add_argument("--json", action="store_true")
    for name, text in (
        ("start", "start one service"),
        ("stop", "send SIGTERM to one service"),
        ("kill", "send SIGKILL to one service and its children"),
    ):
        commands.add_parser(name, help=text).add_argument("service")
    restart = commands.add_parser("restart", help="stop and start one service")
    restart.add_argument("service")
    _add_env_option(restart, "add a variable to its environment")
    execute = commands.add_parser("exec", help="run a command with the environment of one service")
    execute.add_argument("service")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    text = "copy the databases of the running system, but not of containers, to a new backup"
    commands.add_parser("backup", help=text).add_argument("folder", type=Path, metavar="DIR")
    restore = commands.add_parser("restore", help="put a backup into an empty run directory, for the next `up`")
    restore.add_argument("folder", type=Path, metavar="DIR")
    restore.add_argument(
        "--at",
        type=_read_time,
        metavar="TIME",
        help="the moment, such as 2026-11-29T10:00:00Z (default: the end of the archive)",
    )
    logs = commands.add_parser("logs", help="print the log of one service")
    logs.add_argument("service")
    logs.add_argument("-f", "--follow", action="store_true")
    return parser


def _add_env_option(parser: argparse.ArgumentParser, text: str) -> None:
    class Pair(argparse.Action):
        def __call__(self, parser, namespace, value, option=None):  # type: ignore[no-untyped-def]
            name, equals, content = value.partition("=")
            if not equals:
                parser.error(f"{value!r} is not NAME=VALUE, for example --env LOG_LEVEL=DEBUG")
            setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), name: content})

    parser.add_argument("--env", action=Pair, metavar="NAME=VALUE", help=f"{text} (repeatable)")


def _read_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, for example 2026-11-29T10:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _setup(given: argparse.Namespace) -> None:
    choice = container_engine.choose()
    if choice.kind == "native":
        packages.ensure_broker()
    with contextlib.suppress(StackError):  # only a cluster needs it, and the list below states that it is missing
        packages.ensure_etcd()
    packages.ensure_browser()
    for folder in node_packages.FOLDERS:
        node_packages.install(compose.ROOT / folder)
    for name, found in installed.list_installed(COMPOSE).items():
        print(f"{name:<12} {found}")
    print(f"{'Stack':<12} {choice.kind}, because {choice.reason}")
    print("Next: make demo")


def _up(given: argparse.Namespace) -> None:
    interrupt_once()
    stack = None
    try:
        wanted = "ha" if given.ha else None
        stack = runtime.up(given.run_dir, env=given.env, only=given.only, detach=given.detach, wanted=wanted)
        _print_table(stack)
        if not given.detach:
            _watch(stack)
    except KeyboardInterrupt:
        if stack is None:  # interrupted during the start, and `runtime.up` has stopped everything
            raise
        print_line("stopping")
        stack.down()
    except BrokenPipeError:  # a detached stack is complete without its table
        if stack and not given.detach:
            stack.down()
        raise


def _watch(stack: Stack) -> None:
    """Print each change of a process's state, and restart what died, as `restart: unless-stopped` of compose.yaml does.

    Return when another terminal has taken the stack down.
    """
    pause, seen = threading.Event(), {name: stack.state(name) for name in stack.names}
    own = stack.run_dir.read_stack()
    while stack.run_dir.read_stack() == own:
        now = {name: stack.state(name) for name in stack.names}
        for name in now:
            if now[name] != seen[name] and stack.run_dir.read_stack() == own:
                print_line(f"{name} {now[name]}")
        seen = now
        if stack.run_dir.read_stack() == own:
            stack.restart_dead()
        pause.wait(WATCH_SECONDS)


def _start(given: argparse.Namespace) -> None:
    stack = runtime.attach(given.run_dir)
    _print_ignored_settings(stack, given.service)
    stack.start(given.service)


def _restart(given: argparse.Namespace) -> None:
    stack = runtime.attach(given.run_dir)
    _print_ignored_settings(stack, given.service, given.env or ())
    stack.restart(given.service, given.env)


def _print_ignored_settings(stack: Stack, service: str, given: Iterable[str] = ()) -> None:
    runtime.print_ignored_settings({**stack.run_dir.read_variables(), **stack.env(service)}, given)


def _exec(given: argparse.Namespace) -> None:
    """Replace this process by the command. `python` means the interpreter of the harness, which has the packages."""
    stack = runtime.attach(given.run_dir)
    if stack.kind == "docker":
        raise StackError(f"{given.service} runs in a container. Use `docker exec` to run a command there.")
    if not given.words:
        raise StackError("name a command, for example: python -m services.orchestrator.admin list")
    command = [sys.executable if given.words[0] == "python" else given.words[0], *given.words[1:]]
    environment = {**os.environ, **stack.env(stack.members(given.service)[0])}
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606
    except OSError as error:
        raise StackError(f"{command[0]}: {error.strerror}") from None


def _backup(given: argparse.Namespace) -> None:
    stack = runtime.attach(given.run_dir)
    backup.back_up(stack.program(stack.members("postgres")[0]), stack.run_dir.read_variables(), given.folder)


def _down(given: argparse.Namespace) -> None:
    directory = RunDir(given.run_dir)
    if directory.is_occupied():
        with contextlib.suppress(StackError):  # started from another compose.yaml, so its stop order is unknown
            runtime.attach(given.run_dir).down(given.volumes)
            return
    if not take_down(directory, given.volumes):
        print(f"no stack runs in {directory.path}")


def _status(given: argparse.Namespace) -> None:
    directory = RunDir(given.run_dir)
    stack = runtime.attach(given.run_dir) if directory.is_occupied() else None
    if given.json:
        print(json.dumps({"run_dir": str(directory.path), "processes": _rows(stack) if stack else []}, indent=2))
    elif stack:
        _print_table(stack)
    else:
        print(f"no stack runs in {directory.path}")


def _rows(stack: Stack) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in stack.names:
        record = stack.run_dir.read_record(name)
        ports = stack.ports_of(name)
        rows.append(
            {
                "name": name,
                "state": record.observed_state,
                "pid": record.pid if record.is_alive else None,
                "address": f"127.0.0.1:{next(iter(ports.values()))}",
                "ports": {str(port): here for port, here in ports.items()},
                "url": stack.url(name),
                "log": str(stack.run_dir.logs / f"{name}.log"),
                **({"databases": stack.dsns()} if name == "postgres" else {}),
            }
        )
    return rows


def _print_table(stack: Stack) -> None:
    if stack.state(WEB_CLIENT) == "running":
        print(f"Open {stack.url(WEB_CLIENT)} in a browser to buy, transfer and scan tickets.")
        print(f"The password of staff@example.com is {stack.env('user-service')['STAFF_PASSWORD']}.\n", flush=True)
    for row in _rows(stack):
        print(f"{row['name']:<22} {row['state']:<9} {row['pid'] or '-':<8} {row['url']}", flush=True)


def _logs(given: argparse.Namespace) -> None:
    directory = RunDir(given.run_dir)
    if directory.is_occupied():
        command = runtime.attach(given.run_dir).log_command(given.service, given.follow)
    else:
        log = directory.logs / f"{given.service}.log"
        if not log.exists():
            raise StackError(f"no log of {given.service!r} in {log.parent}")
        command = ["cat", str(log)]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the command would inherit that
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    run_main(main)
