"""How much memory a run takes: this process and all that it started, brokers and databases included."""

from __future__ import annotations

import ctypes
import gc
import threading

import psutil

EVERY_SECONDS = 3.0


class Memory:
    """Looks now and then, on a thread of its own, and keeps the most that it saw."""

    def __init__(self) -> None:
        self.peak = 0  # bytes
        self.during = ""
        self._test = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._thread.start()

    def begin(self, test: str) -> None:
        """What is seen from now on is seen while `test` runs."""
        self._test = test

    @property
    def seen(self) -> dict[str, object]:
        """The most that was seen, in bytes, and the test that ran then."""
        return {"peak": self.peak, "during": self.during}

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            test, seen = self._test, proportional(psutil.Process())
            if seen > self.peak:
                self.peak, self.during = seen, test


def give_back() -> None:
    """Have glibc return to the machine what is free: it keeps the hundreds of MiB that a large conversation took."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        gc.collect()
        trim(0)


def proportional(leader: psutil.Process) -> int:
    """Bytes that a process and its descendants occupy, each shared page divided among those that share it (PSS)."""
    return sum(_pss(process.pid) for process in (leader, *leader.children(recursive=True)))


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as figures:
            return next(int(line.split()[1]) * 1024 for line in figures if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0  # it has ended meanwhile
