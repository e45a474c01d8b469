"""Chooses ports: the reference's where they are free, others where they are not."""

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
# Below the kernel's ephemeral range: no outgoing connection takes a port of ours while its process is restarted.
FALLBACK_PORTS = range(20000, 32000)
CLAIMS = Path(tempfile.gettempdir()) / f"ticketremaster-ports-{os.getuid()}.json"


def is_free(port: int) -> bool:
    """Whether nobody listens on `port`.

    SO_REUSEPORT stays off: with it a gRPC server of somebody else would silently share the port. SO_REUSEADDR is
    on, so that connections of the last run in TIME_WAIT do not move the ports of this one.
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
    """A free port for each preferred one, claimed for as long as this process lives.

    The claim keeps a second stack, started at the same moment, from choosing the port before we listen on it.
    """
    with _claims() as claims:
        chosen: list[int] = []
        for port in preferred:
            chosen.append(_choose(port, taken=claims.keys() | {str(c) for c in chosen}))
        me = Identity.of(os.getpid())
        claims.update({str(port): (me.pid, me.started) for port in chosen})
    return chosen


def release(ports: list[int]) -> None:
    """Give up this process's claims on `ports`."""
    with _claims() as claims:
        for port in ports:
            if claims.get(str(port), (0, 0))[0] == os.getpid():
                del claims[str(port)]


def _choose(preferred: int, taken: set[str]) -> int:
    offset = random.randrange(len(FALLBACK_PORTS))  # noqa: S311 - spreads stacks out, keeps no secret
    candidates: list[int] = [preferred, *FALLBACK_PORTS[offset:], *FALLBACK_PORTS[:offset]]
    for port in candidates:
        if str(port) not in taken and is_free(port):
            return port
    raise StackError("no free port between 20000 and 32000")


@contextmanager
def _claims() -> Iterator[dict[str, tuple[int, float]]]:
    """The claims of all harnesses of this user that still run, locked while in hand."""
    descriptor = os.open(CLAIMS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held = json.loads(file.read() or "{}")
        claims = {port: (pid, started) for port, (pid, started) in held.items() if Identity(pid, started).is_alive()}
        yield claims
        file.seek(0)
        file.truncate()
        json.dump(claims, file)
