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

from harness.errors import StackError
from harness.runtime.process import Identity

HOST = "127.0.0.1"
# Below the kernel's ephemeral range, so that no outgoing connection takes the port of a process that is restarting.
FALLBACK_PORTS = range(20000, 32000)
CLAIMS = Path(tempfile.gettempdir()) / f"ticketremaster-ports-{os.getuid()}.json"


def is_free(port: int) -> bool:
    """Return whether no process listens on `port`.

    SO_REUSEPORT stays off, because this stack would then silently share the port with another gRPC server.
    SO_REUSEADDR is on, so that the last run's connections in TIME_WAIT do not change the ports of this run.
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

    A claim prevents a second stack from choosing the port before this stack listens on it. Raises StackError if no
    port is free.
    """
    with _claims() as claims:
        chosen: list[int] = []
        for port in preferred:
            chosen.append(_choose(port, taken=claims.keys() | {str(c) for c in chosen}))
        me = Identity.of(os.getpid())
        claims.update({str(port): (me.pid, me.started) for port in chosen})
    return chosen


def release(ports: list[int]) -> None:
    """Release this process's claims on `ports`."""
    with _claims() as claims:
        for port in ports:
            if claims.get(str(port), (0, 0))[0] == os.getpid():
                del claims[str(port)]


def _choose(preferred: int, taken: set[str]) -> int:
    offset = random.randrange(len(FALLBACK_PORTS))  # noqa: S311 - spreads stacks over the range, no secret
    candidates: list[int] = [preferred, *FALLBACK_PORTS[offset:], *FALLBACK_PORTS[:offset]]
    for port in candidates:
        if str(port) not in taken and is_free(port):
            return port
    raise StackError("no free port between 20000 and 32000. Stop another stack with `python -m harness down`.")


@contextmanager
def _claims() -> Iterator[dict[str, tuple[int, float]]]:
    """Lock the claims file and yield the claims of all live processes of this user: {port: (pid, start time)}."""
    descriptor = os.open(CLAIMS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held = json.loads(file.read() or "{}")
        claims = {port: (pid, started) for port, (pid, started) in held.items() if Identity(pid, started).is_alive()}
        yield claims
        file.seek(0)
        file.truncate()
        json.dump(claims, file)
