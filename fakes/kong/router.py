"""Kong's router (`traditional_compatible`) for what is used here: which route wins, and on which path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

from fakes.kong.declarative import Route

T = TypeVar("T")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def _decode(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in UNRESERVED else f"%{match[1].upper()}"


def normalize(path: str) -> str:
    """The path as Kong routes and proxies it: unreserved octets decoded, slashes merged, dot segments resolved.

    Without it `/api/auth/login/../logout` or `/api//pay` could be matched as one path and served as another.
    """
    if "%" not in path and "//" not in path and "/." not in path:
        return path
    path = re.sub(r"%([0-9A-Fa-f]{2})", _decode, path)
    kept: list[str] = []
    segments = [segment for segment in path.split("/") if segment]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    directory = path.endswith("/") or (bool(segments) and segments[-1] in (".", ".."))
    return "/" + "/".join(kept) + ("/" if directory and kept else "")


def _expression(path: str) -> re.Pattern[str]:
    if not path.startswith("~"):
        return re.compile(re.escape(path))
    pattern = path[1:]
    if pattern.endswith("$") and not pattern.endswith(r"\$"):
        pattern = pattern[:-1] + r"\Z"  # Python's $ also matches before a final newline, Kong's does not
    return re.compile(pattern)


class Router(Generic[T]):
    """Finds what a path and method lead to: routes that name methods, then regular expressions, then the longest."""

    def __init__(self, routes: Iterable[tuple[Route, T]]) -> None:
        entries = [
            (frozenset(route.methods or ()), path.startswith("~"), route.regex_priority, path, target)
            for route, target in routes
            for path in route.paths
        ]
        entries.sort(key=lambda entry: (not entry[0], not entry[1], -entry[2] if entry[1] else 0, -len(entry[3])))
        self._entries = [(methods, _expression(path), target) for methods, _, _, path, target in entries]

    def match(self, method: str, path: str) -> T | None:
        """The target for a normalized path, or None: Kong's 404."""
        for methods, expression, target in self._entries:
            if (not methods or method in methods) and expression.match(path):
                return target
        return None
