"""Choose between native processes, a cluster and containers, and run the container engine's commands."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StackError
from harness.runtime import packages
from harness.runtime.compose import ROOT

KINDS = ("native", "ha", "docker")
COMPOSE_COMMANDS = (("docker", "compose"), ("docker-compose",))
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
FILE = "compose.yaml"  # the copy in the run directory, from which Compose creates the containers
COMMAND_SECONDS = 1200  # a first build downloads every package


@dataclass(frozen=True)
class Choice:
    """The kind of stack (`native`, `ha` or `docker`) and the reason for it."""

    kind: str
    reason: str


def choose(wanted: str | None = None) -> Choice:
    """Choose the kind of stack from `wanted`, or from the variable STACK.

    `auto` prefers native processes, because they start in seconds, and takes containers if RabbitMQ is not available.
    Raises StackError for another value of STACK, or for `docker` without a container engine.
    """
    wanted = wanted or os.environ.get("STACK", "auto")
    if wanted not in (*KINDS, "auto"):
        raise StackError(f"STACK={wanted} is invalid: set it to native, ha, docker or auto")
    if wanted in ("native", "ha"):
        return Choice(wanted, f"STACK={wanted}")
    if wanted == "auto" and (obtainable := packages.find_broker_source()):
        return Choice("native", f"STACK=auto: {obtainable}")
    problem = find_problem()  # last, because a container engine answers slowly
    if wanted == "docker":
        if problem:
            raise StackError(f"STACK=docker: {problem}")
        return Choice(wanted, f"STACK={wanted}")
    alternative = problem or "a container engine answers"
    return Choice("native" if problem else "docker", f"STACK=auto: no RabbitMQ here, and {alternative}")


@functools.cache
def find_problem() -> str | None:
    """Return the reason why this machine cannot run containers, or None if it can."""
    if not shutil.which("docker"):
        return "there is no `docker` command on this machine"
    if not _succeeds("docker", "info"):
        return "no container engine answers `docker info`"
    if not any(_succeeds(*command, "version") for command in COMPOSE_COMMANDS):
        return "neither `docker compose` nor `docker-compose` is installed"
    return None


def has_image(name: str) -> bool:
    """Return whether the engine has the image."""
    return _succeeds("docker", "image", "inspect", name)


def run_docker(*arguments: str) -> str:
    """Run a docker command and return its output. Raises StackError with the end of its output if it fails."""
    return run_command(["docker", *arguments])


@dataclass(frozen=True)
class Project:
    """The Compose project of one run directory: its containers have a name prefix and a label of their own."""

    file: Path

    @classmethod
    def of(cls, run_dir: Path) -> Project:
        """Return the project of a run directory, with or without containers."""
        return cls(run_dir / FILE)

    @property
    def name(self) -> str:
        """The project name, derived from the path of the run directory."""
        return f"ticketremaster-{hashlib.sha256(str(self.file.parent).encode()).hexdigest()[:8]}"

    def command(self, *arguments: str) -> list[str]:
        """Return a Compose command line for this project."""
        where = ["-p", self.name, "-f", str(self.file), "--project-directory", str(ROOT)]
        return [*find_compose(), *where, *arguments]

    def run_compose(self, *arguments: str) -> str:
        """Run a Compose command and return its output. Raises StackError with the end of its output if it fails."""
        return run_command(self.command(*arguments))

    def ids(self, services: Iterable[str]) -> list[str]:
        """Return the container ids of `services` in that order. Raises StackError for a service without a container."""
        known = self.containers()
        try:
            return [known[service] for service in services]
        except KeyError as missing:
            raise StackError(f"{missing} has no container in this stack. Start the stack with it.") from None

    def containers(self) -> dict[str, str]:
        """Return each container id of the project by its service's name."""
        labels = f'{{{{.ID}}}} {{{{.Label "{SERVICE}"}}}}'
        listed = run_docker("ps", "-a", "--no-trunc", "--filter", f"label={PROJECT}={self.name}", "--format", labels)
        return {service: found for found, _, service in (line.partition(" ") for line in listed.splitlines())}

    def remove(self, volumes: bool) -> None:
        """Stop and remove all containers of the project. `volumes` deletes the data, too. No-op without containers."""
        if self.file.exists():
            self.run_compose("down", "--remove-orphans", *(["--volumes"] if volumes else []))


@functools.cache
def find_compose() -> tuple[str, ...]:
    """Return the Compose command of this machine. Raises StackError if Compose is not installed."""
    for command in COMPOSE_COMMANDS:
        if _succeeds(*command, "version"):
            return command
    raise StackError("neither `docker compose` nor `docker-compose` is installed")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run_command(command: list[str], text: str = "") -> str:
    """Run a command with `text` as its input and return its output. Raises StackError with its end if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    if done.returncode:
        complaint = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise StackError(f"{' '.join(command)} failed:\n{complaint}")
    return done.stdout
