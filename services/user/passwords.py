"""Password hashes, by bcrypt."""

from __future__ import annotations

import bcrypt

ROUNDS = 10  # the cost of a hash, about 50 ms, also in seed.sql
MAX_BYTES = 72  # bcrypt ignores the rest
DUMMY_HASH = (
    "$2b$10$YjwUt1/d5jdIBrzM3Z3dMODfc0P7NEWJR8wDeQ11AO34moeVS22Gm"  # a check costs as much as one of a real hash
)


def hash_password(password: str) -> str:
    """Return the hash to store. `password` has at most `MAX_BYTES` bytes."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode()


def matches(password: str, stored: str | None) -> bool:
    """Check a password. Without a stored hash the result is False, after the same time."""
    given = password.encode()
    is_match = bcrypt.checkpw(given[:MAX_BYTES], (stored or DUMMY_HASH).encode())
    return is_match and stored is not None and len(given) <= MAX_BYTES
