"""The rules for new passwords, and their hashes by bcrypt."""

from __future__ import annotations

import bcrypt
from zxcvbn.frequency_lists import FREQUENCY_LISTS

ROUNDS = 10  # the cost of a hash, about 50 ms, also in seed.sql
MIN_BYTES, MAX_BYTES = 8, 72  # bcrypt ignores the rest
_COMMON = frozenset(FREQUENCY_LISTS["passwords"])  # 30,000 in lower case. The rest of the package costs CPU time
DUMMY_HASH = (
    "$2b$10$YjwUt1/d5jdIBrzM3Z3dMODfc0P7NEWJR8wDeQ11AO34moeVS22Gm"  # a check costs as much as one of a real hash
)


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
