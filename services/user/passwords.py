"""The rules for new passwords, and their hashes by bcrypt.

A hash costs about 50 ms of CPU time, so few of them run at once. The threads that hash have a low priority, so that the
threads of other requests run first on a busy machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import bcrypt
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from services.chassis.errors import Refused
from services.chassis.neighbours import Slots
from services.contracts.errors import ErrorCode

T = TypeVar("T")

ROUNDS = 10  # the cost of a hash, about 50 ms, also in seed.sql
MIN_BYTES, MAX_BYTES = 8, 72  # bcrypt ignores the rest
_COMMON = frozenset(FREQUENCY_LISTS["passwords"])  # 30,000 in lower case. The rest of the package costs CPU time
DUMMY_HASH = (
    "$2b$10$YjwUt1/d5jdIBrzM3Z3dMODfc0P7NEWJR8wDeQ11AO34moeVS22Gm"  # a check costs as much as one of a real hash
)
NICENESS = 10  # about a tenth of the CPU time of a thread with normal priority
RETRY_AFTER = 1  # seconds


def require_good(password: str) -> None:
    """Raise ValueError for a password that is too short, too long or common."""
    if not MIN_BYTES <= len(password.encode()) <= MAX_BYTES:
        raise ValueError(f"a password must have {MIN_BYTES} to {MAX_BYTES} bytes")
    if password.lower() in _COMMON:
        raise ValueError("many people use this password, so choose another one")


def hash_password(password: str) -> str:
    """Return the hash to store. `password` has at most `MAX_BYTES` bytes."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode()


def matches(password: str, stored: str | None) -> bool:
    """Check a password. Without a stored hash the result is False, after the same time."""
    given = password.encode()
    is_match = bcrypt.checkpw(given[:MAX_BYTES], (stored or DUMMY_HASH).encode())
    return is_match and stored is not None and len(given) <= MAX_BYTES


class Hashing:
    """Runs at most `number` hashes at once, on threads of its own. Thread-safe."""

    def __init__(self, number: int) -> None:
        self._slots = Slots(number)
        self._threads = ThreadPoolExecutor(number, "password", initializer=_lower_priority)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Reserve one hash for the block. Raises Refused RATE_LIMITED at once if all are in use."""
        if not self._slots.take(0.0):
            raise Refused(
                ErrorCode.RATE_LIMITED,
                f"Too many logins at this moment. Try again in {RETRY_AFTER} s.",
                retry_after=RETRY_AFTER,
            )
        try:
            yield
        finally:
            self._slots.release()

    def run(self, work: Callable[..., T], *arguments: str | None) -> T:
        """Run `hash_password` or `matches`, inside the block of a slot."""
        return self._threads.submit(work, *arguments).result()


def _lower_priority() -> None:
    with suppress(OSError):  # only Linux has priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
