"""Ids and codes that look random but depend only on the seed and on the number of earlier draws."""

import hashlib
import secrets
import string
from typing import Any

BASE62 = string.digits + string.ascii_letters
HEX = "0123456789abcdef"


class Ids:
    """A source of ids. The same seed and draws give the same ids. Without a seed, no two runs share an id."""

    def __init__(self, seed: str | None = None) -> None:
        self.seed = secrets.token_hex(16) if seed is None else seed
        self.drawn = 0

    def draw(self, alphabet: str, length: int) -> str:
        """Draw `length` characters of `alphabet`, at most 32, one for each byte of the digest."""
        digest = hashlib.sha256(f"{self.seed}/{self.drawn}".encode()).digest()
        self.drawn += 1
        return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])

    def draw_digits(self, length: int) -> str:
        return self.draw(string.digits, length)

    def dump(self) -> dict[str, Any]:
        return {"seed": self.seed, "drawn": self.drawn}

    def load(self, dumped: dict[str, Any]) -> None:
        self.seed, self.drawn = str(dumped["seed"]), int(dumped["drawn"])
