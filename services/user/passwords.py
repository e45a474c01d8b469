"""Passwords, by bcrypt."""

from __future__ import annotations

import bcrypt

ROUNDS = 10  # what a hash costs, new accounts and the seed's alike: some 50 ms
LONGEST = 72  # bytes; bcrypt looks at no more
NOBODY = "$2b$10$YjwUt1/d5jdIBrzM3Z3dMODfc0P7NEWJR8wDeQ11AO34moeVS22Gm"  # as dear to check as any


def hashed(password: str) -> str:
    """The hash to store. `password` is at most 72 bytes."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(ROUNDS)).decode()


def matches(password: str, stored: str | None) -> bool:
    """True when `password` is the one. Without a stored hash it takes as long and is False."""
    sent = password.encode()
    right = bcrypt.checkpw(sent[:LONGEST], (stored or NOBODY).encode())
    return right and stored is not None and len(sent) <= LONGEST
