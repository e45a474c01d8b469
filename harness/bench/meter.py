"""The CPU cost of processes: retired instructions where the kernel allows counting them, otherwise CPU time.

CPU time depends on who else uses the machine and its caches. The 26 million instructions of a purchase took 23 to 37 ms
within one afternoon, while their number varied by 2 %. Both meters count user and kernel mode, in all threads and
child processes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

import psutil

from harness.bench.verdict import CPU_TIME, INSTRUCTIONS
from harness.errors import StackError

IDLE_SECONDS = 2.0
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # the system call's number
_SIZE = 128  # of struct perf_event_attr, see perf_event_open(2)
_HARDWARE, _INSTRUCTIONS, _INHERIT = 0, 1, 1 << 1


class Meter(Protocol):
    """Reads a growing total for each process. The difference of two readings is the use between them."""

    unit: str  # of the row: figures in two units are never compared
    scale: str  # of one reading

    def reading(self) -> dict[str, float]:
        """Return the total of each process by name."""


class CpuTimeMeter:
    """Measures CPU time (user and system) in milliseconds."""

    unit, scale = CPU_TIME, "ms"

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes

    def reading(self) -> dict[str, float]:
        return {name: 1000 * cpu_seconds(process) for name, process in self._processes.items()}


class InstructionMeter:
    """Counts retired instructions in millions. Counting slows the processes, so never time the same run."""

    unit, scale = INSTRUCTIONS, "M"

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._counters: dict[str, list[int]] = {name: [] for name in processes}
        try:
            for name, process in processes.items():
                for thread in _threads(process):
                    with suppress(ProcessLookupError):  # the thread has ended
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
        """Stop counting and close the counters."""
        for counters in self._counters.values():
            while counters:
                os.close(counters.pop())


class NetMeter:
    """Subtracts what the idle processes use, so that a measurement may include a wait."""

    def __init__(self, meter: Meter, idle: Mapping[str, float]) -> None:
        self.unit, self.scale = meter.unit, meter.scale
        self._meter = meter
        self._idle = idle

    def reading(self) -> dict[str, float]:
        now = time.monotonic()
        return {name: total - self._idle[name] * now for name, total in self._meter.reading().items()}


def measure_idle(meter: Meter) -> dict[str, float]:
    """Return what each process uses in a second without requests."""
    before, start = meter.reading(), time.monotonic()
    time.sleep(IDLE_SECONDS)  # the interval of the measurement
    after, seconds = meter.reading(), time.monotonic() - start
    return {name: (after[name] - before[name]) / seconds for name in after}


@contextmanager
def open_meter(processes: Mapping[str, psutil.Process]) -> Iterator[Meter]:
    """Yield an instruction meter, or a CPU time meter if the kernel forbids counting."""
    try:
        meter = InstructionMeter(processes)
    except OSError:
        yield CpuTimeMeter(processes)
        return
    try:
        yield meter
    finally:
        meter.close()


def cpu_seconds(leader: psutil.Process) -> float:
    """Return the CPU seconds that a process and its descendants have used. Raises StackError if it has ended."""
    total = 0.0
    for process in _with_children(leader):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _with_children(leader: psutil.Process) -> list[psutil.Process]:
    try:
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess as error:
        raise StackError(f"a measured process has ended: {error}") from error


def _threads(leader: psutil.Process) -> Iterator[int]:
    for process in _with_children(leader):
        with suppress(psutil.NoSuchProcess):
            yield from (thread.id for thread in process.threads())


def _counter(thread: int) -> int:
    """Open a counter for a thread and all that it starts. Raises OSError if the kernel forbids it."""
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
