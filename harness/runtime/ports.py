"""Choose ports: those of the reference if they are free, otherwise others."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from harness.errors import StackError
from harness.runtime.process import Identity
from harness.runtime.run_directory import RunDir

HOST = "127.0.0.1"
# Below the kernel's ephemeral range, so that no outgoing connection takes the port of a process that is restarting.
FALLBACK_PORTS = range(20000, 32000)
CLAIMS = Path(tempfile.gettempdir()) / f"ticketremaster-ports-{os.getuid()}.json"
STACKS = Path(tempfile.gettempdir()) / f"ticketremaster-stacks-{os.getuid()}.json"


def is_free(port: int) -> bool:
    """Return whether no process listens on `port`.

    SO_REUSEPORT stays off, because this stack would then silently share the port with another gRPC server.
    SO_REUSEADDR is on, so that the last run's connections in TIME_WAIT do not change the ports of this run.
    The probe itself listens for a moment. So do not wait with it for a server, which could not listen at that moment.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def claim(preferred: list[int]) -> list[int]:
    """Claim and return a free port for each preferred one. Claims end with this process.

    A claim prevents a second stack from choosing the port before this stack listens on it. The ports of a registered
    stack stay claimed until it is taken down. Raises StackError if no port is free.
    """
    with _claims() as claims:
        taken = {int(port) for port in claims}.union(*(RunDir(path).ports() for path in _read_stacks()))
        chosen: list[int] = []
        for port in preferred:
            chosen.append(_choose(port, taken=taken.union(chosen)))
        me = Identity.of(os.getpid())
        claims.update({str(port): (me.pid, me.started) for port in chosen})
    return chosen


def register(run_dir: RunDir) -> None:
    """Claim the ports of the stack in `run_dir` until it is taken down.

    A detached stack outlives the process that claimed its ports, and a killed program of it does not listen.
    """
    with _claims():
        occupied = [path for path in _read_stacks() if RunDir(path).is_occupied()]
        with _open_private(STACKS) as file:
            file.truncate()
            json.dump(sorted({*occupied, str(run_dir.path)}), file)


def release(ports: list[int]) -> None:
    """Release this process's claims on `ports`."""
    with _claims() as claims:
        for port in ports:
            if claims.get(str(port), (0, 0))[0] == os.getpid():
                del claims[str(port)]


def _choose(preferred: int, taken: set[int]) -> int:
    offset = random.randrange(len(FALLBACK_PORTS))  # noqa: S311 - spreads stacks over the range, no secret
    candidates: list[int] = [preferred, *FALLBACK_PORTS[offset:], *FALLBACK_PORTS[:offset]]
    for port in candidates:
        if port not in taken and is_free(port):
            return port
    raise StackError("no free port between 20000 and 32000. Stop another stack with `python -m harness down`.")


@contextmanager
def _claims() -> Iterator[dict[str, tuple[int, float]]]:
    """Lock the claims file and yield the claims of all live processes of this user: {port: (pid, start time)}."""
    with _open_private(CLAIMS) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held = json.loads(file.read() or "{}")
        claims = {port: (pid, started) for port, (pid, started) in held.items() if Identity(pid, started).is_alive()}
        yield claims
        file.seek(0)
        file.truncate()
        json.dump(claims, file)


def _read_stacks() -> list[str]:
    with _open_private(STACKS) as file:
        return cast(list[str], json.loads(file.read() or "[]"))


def _open_private(path: Path) -> TextIO:
    """Open a file of this user that may not exist. A symbolic link in the shared folder is refused."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
