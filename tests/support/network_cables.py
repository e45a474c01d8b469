"""A network cable between this machine and a network namespace of its own. Only root can lay one, with Linux's `ip`.

A proxy that is silent still acknowledges packets. A pulled cable loses them: a connect gets no answer. A connection
waits without a sign, and continues when the cable is plugged in again.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from ipaddress import IPv4Network
from types import TracebackType
from typing import Self, TypeVar

from services.chassis.kernel_limits import SOCKET_OPTIONS

T = TypeVar("T")

CONNECT_SECONDS = 2.0
CLONE_NEWNET = 0x40000000  # <linux/sched.h>
# The addresses for tests of networks (RFC 2544). Each cable gets four, of which this machine has the second one.
NETS = IPv4Network("198.18.0.0/15")
IP, NSENTER = shutil.which("ip"), shutil.which("nsenter")
_firsts = iter(random.sample(range(0, NETS.num_addresses, 4), 1000))  # of the nets of this process


@cache
def find_obstacle() -> str:
    """Return the reason why this machine cannot lay a cable, or an empty text."""
    if os.geteuid() != 0:
        return "only root can create a network namespace"
    if not (IP and NSENTER):
        return "the commands `ip` (package iproute2) and `nsenter` (package util-linux) are missing"
    try:
        with Cable() as cable, cable.listen() as listener:
            socket.create_connection(listener.getsockname(), CONNECT_SECONDS).close()
            return ""
    except OSError as error:
        return f"no network namespace: {error}"
    except subprocess.CalledProcessError as error:
        return f"no network namespace: {error.stderr.strip()}"


class Cable:
    """A cable whose far end is in a namespace. Both end with the block, or with this process if it is killed."""

    def __init__(self) -> None:
        self._file = _run_in_thread(_enter_new_namespace)
        first = next(_firsts)
        here, there = NETS[first + 1], NETS[first + 2]
        self.address = str(there)
        self._link = f"tr{here.packed[1:].hex()}"
        hardware = f"02:00:{there.packed.hex(':')}"
        try:
            peer = ("peer", "name", "far", "address", hardware, "netns", self._path)
            _run(IP, "link", "add", self._link, "type", "veth", *peer)
            _run(IP, "addr", "add", f"{here}/30", "dev", self._link)
            _run(IP, "link", "set", self._link, "up")
            # Without this, the kernel looks for the address and reports an unreachable host after three seconds.
            _run(IP, "neigh", "add", self.address, "lladdr", hardware, "dev", self._link, "nud", "permanent")
            self._run_there("addr", "add", f"{self.address}/30", "dev", "far")
            self.plug()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _run(IP, "link", "del", self._link)
        finally:
            os.close(self._file)

    def listen(self) -> socket.socket:
        """Return a socket that listens at the far end, on `address` and a port that the kernel chooses."""

        def open_there() -> socket.socket:
            _enter(self._file)
            listener = socket.create_server((self.address, 0))
            for option in SOCKET_OPTIONS:  # accepted sockets inherit them. So a lost client is noticed, as by a server
                listener.setsockopt(*option)
            return listener

        return _run_in_thread(open_there)

    def pull(self) -> None:
        """Lose everything that is sent in either direction."""
        self._run_there("link", "set", "far", "down")

    def plug(self) -> None:
        """Connect both ends again."""
        self._run_there("link", "set", "far", "up")

    @property
    def _path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def _run_there(self, *arguments: str) -> None:
        _run(NSENTER, f"--net={self._path}", str(IP), *arguments)


def _run(program: str | None, *arguments: str) -> None:
    subprocess.run([str(program), *arguments], check=True, capture_output=True, text=True)


def _run_in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own. A namespace belongs to a thread, and nothing moves this process into it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _enter_new_namespace() -> int:
    """Move this thread into a new namespace, and return an open file that stands for it."""
    _call("unshare", CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _enter(file: int) -> None:
    _call("setns", file, CLONE_NEWNET)


def _call(function: str, *arguments: int) -> None:
    """Call a function of the C library, because Python has it since 3.12 only. Raises OSError."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
