"""What a piece of work costs: instructions retired, where the kernel lets us count them, else CPU time.

A machine that others use too is no good clock of CPU: the same 26 million instructions of a purchase took 23 to 37 ms
within one afternoon, since whoever shares the caches slows each of them down. Their number stays within two in a
hundred. Counted are user and kernel together, all threads of a process and all that it starts meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

import psutil

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # the system call's number
_SIZE = 128  # of struct perf_event_attr, see perf_event_open(2)
_HARDWARE, _INSTRUCTIONS, _INHERIT = 0, 1, 1 << 1


class Meter(Protocol):
    """Reads what processes have used, by name, since some moment; two readings tell what was used between them."""

    unit: str

    def reading(self) -> dict[str, float]:
        """In millions of instructions or in milliseconds of CPU, as `unit` says."""


class Clock:
    """CPU time, user and system, in milliseconds."""

    unit = "ms"

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes

    def reading(self) -> dict[str, float]:
        return {name: 1000 * used_by(process) for name, process in self._processes.items()}


class Instructions:
    """Instructions retired, in millions. Counting costs time: what is counted is not to be timed as well."""

    unit = "M instructions"

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._counters: dict[str, list[int]] = {name: [] for name in processes}
        try:
            for name, process in processes.items():
                for thread in _threads(process):
                    with suppress(ProcessLookupError):  # it has ended meanwhile
                        self._counters[name].append(_counter(thread))
        except OSError:
            self.close()
            raise

    def reading(self) -> dict[str, float]:
        return {
            name: sum(struct.unpack("Q", os.read(counter, 8))[0] for counter in counters) / 1e6
            for name, counters in self._counters.items()
        }

    def close(self) -> None:
        """Stop counting."""
        for counters in self._counters.values():
            while counters:
                os.close(counters.pop())


@contextmanager
def meter(processes: Mapping[str, psutil.Process]) -> Iterator[Meter]:
    """A meter of these processes: a clock where nobody may count."""
    try:
        counting = Instructions(processes)
    except OSError:
        yield Clock(processes)
        return
    try:
        yield counting
    finally:
        counting.close()


def used_by(leader: psutil.Process) -> float:
    """CPU seconds used so far by a process and all that it started."""
    total = 0.0
    for process in _with_children(leader):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _with_children(leader: psutil.Process) -> list[psutil.Process]:
    return [leader, *leader.children(recursive=True)]


def _threads(leader: psutil.Process) -> Iterator[int]:
    for process in _with_children(leader):
        with suppress(psutil.NoSuchProcess):
            yield from (thread.id for thread in process.threads())


def _counter(thread: int) -> int:
    """A descriptor that counts for a thread and all that it starts. Raises OSError."""
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(f"perf_event_open has no number on {platform.machine()}")
    attributes = struct.pack("IIQQQQQ", _HARDWARE, _SIZE, _INSTRUCTIONS, 0, 0, 0, _INHERIT).ljust(_SIZE, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    found = int(libc.syscall(number, ctypes.c_char_p(attributes), thread, -1, -1, 0))
    if found < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return found
