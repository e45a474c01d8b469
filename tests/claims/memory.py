"""Measures the memory of a run: this process and its descendants, with brokers and databases."""

from __future__ import annotations

import ctypes
import gc
import threading

import psutil

EVERY_SECONDS = 3.0


class MemoryMonitor:
    """Samples memory on its own thread and keeps the peak."""

    def __init__(self) -> None:
        self.peak = 0  # bytes
        self.during = ""
        self._test = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._thread.start()

    def begin(self, test: str) -> None:
        """Set the test that runs now."""
        self._test = test

    @property
    def seen(self) -> dict[str, object]:
        """Return the peak in bytes, and the test that ran at that time."""
        return {"peak": self.peak, "during": self.during}

    def close(self) -> None:
        """Stop the thread."""
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            test, seen = self._test, measure_pss(psutil.Process())
            if seen > self.peak:
                self.peak, self.during = seen, test


def return_free_memory() -> None:
    """Make glibc return free memory to the system. It keeps hundreds of MiB after a large exchange."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        gc.collect()
        trim(0)


def measure_pss(leader: psutil.Process) -> int:
    """Return the bytes of a process and its descendants. A shared page is divided among its processes (PSS)."""
    return sum(_read_pss(process.pid) for process in (leader, *leader.children(recursive=True)))


def _read_pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as figures:
            return next(int(line.split()[1]) * 1024 for line in figures if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0  # the process has ended
