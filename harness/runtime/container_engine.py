"""Where the system runs, natively or in containers; and the container engine's few commands that the harness needs."""

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

KINDS = ("native", "docker")
COMPOSE_COMMANDS = (("docker", "compose"), ("docker-compose",))
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
FILE = "compose.yaml"  # in the run directory: what its containers were made from
SECONDS = 1200  # for one command; a first build fetches every package


@dataclass(frozen=True)
class Choice:
    """`native` or `docker`, and why."""

    kind: str
    reason: str


def choose() -> Choice:
    """What STACK asks for; with `auto` native wherever a broker can be had, since it is up in seconds, else containers.

    Raises StackError if STACK is none of native, docker and auto, or asks for containers where there are none.
    """
    wanted = os.environ.get("STACK", "auto")
    if wanted not in (*KINDS, "auto"):
        raise StackError(f"STACK={wanted}: has to be native, docker or auto")
    if wanted == "native":
        return Choice(wanted, f"STACK={wanted}")
    if wanted == "auto" and (obtainable := packages.find_broker_source()):
        return Choice("native", f"STACK=auto: {obtainable}")
    lacking = find_problem()  # asked last: an engine takes its time to answer
    if wanted == "docker":
        if lacking:
            raise StackError(f"STACK=docker: {lacking}")
        return Choice(wanted, f"STACK={wanted}")
    nearest = lacking or "a container engine answers"
    return Choice("native" if lacking else "docker", f"STACK=auto: no RabbitMQ here, and {nearest}")


@functools.cache
def find_problem() -> str | None:
    """Why no containers can be run here; None when they can."""
    if not shutil.which("docker"):
        return "there is no `docker` command on this machine"
    if not _succeeds("docker", "info"):
        return "no container engine answers `docker info`"
    if not any(_succeeds(*command, "version") for command in COMPOSE_COMMANDS):
        return "there is neither `docker compose` nor `docker-compose`"
    return None


def has_image(name: str) -> bool:
    """Whether the engine has the image already."""
    return _succeeds("docker", "image", "inspect", name)


def run_docker(*arguments: str) -> str:
    """What a docker command prints. Raises StackError with what it complains of."""
    return run_command(["docker", *arguments])


@dataclass(frozen=True)
class Project:
    """The containers of one run directory, as compose knows them."""

    file: Path

    @classmethod
    def of(cls, run_dir: Path) -> Project:
        """The project of a run directory, whether it has containers or not."""
        return cls(run_dir / FILE)

    @property
    def name(self) -> str:
        """The same for the same directory, another for every other."""
        return f"ticketremaster-{hashlib.sha256(str(self.file.parent).encode()).hexdigest()[:8]}"

    def command(self, *arguments: str) -> list[str]:
        """A command line of compose for this project."""
        where = ["-p", self.name, "-f", str(self.file), "--project-directory", str(ROOT)]
        return [*find_compose(), *where, *arguments]

    def run_compose(self, *arguments: str) -> str:
        """What a compose command prints. Raises StackError with what it complains of."""
        return run_command(self.command(*arguments))

    def ids(self, services: Iterable[str]) -> list[str]:
        """The containers of `services`, running or not, in that order. Raises StackError for one that has none."""
        known = self.containers()
        try:
            return [known[service] for service in services]
        except KeyError as missing:
            raise StackError(f"{missing} has no container here: it was not started with the others") from None

    def containers(self) -> dict[str, str]:
        """Every container of the project by its service's name."""
        labels = f'{{{{.ID}}}} {{{{.Label "{SERVICE}"}}}}'
        listed = run_docker("ps", "-a", "--no-trunc", "--filter", f"label={PROJECT}={self.name}", "--format", labels)
        return {service: found for found, _, service in (line.partition(" ") for line in listed.splitlines())}

    def remove(self, volumes: bool) -> None:
        """End and remove every container of the project; `volumes` removes the data too. No-op if it never was."""
        if self.file.exists():
            self.run_compose("down", "--remove-orphans", *(["--volumes"] if volumes else []))


@functools.cache
def find_compose() -> tuple[str, ...]:
    """Compose, however it is called on this machine. Raises StackError when it is not there."""
    for command in COMPOSE_COMMANDS:
        if _succeeds(*command, "version"):
            return command
    raise StackError("there is neither `docker compose` nor `docker-compose` on this machine")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run_command(command: list[str]) -> str:
    """What a command prints. Raises StackError with what it complains of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode:
        complaint = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise StackError(f"{' '.join(command)} failed:\n{complaint}")
    return done.stdout
