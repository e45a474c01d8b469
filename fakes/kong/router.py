"""The part of Kong's router (`traditional_compatible`) that the configuration uses."""

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
    """Normalize a path as Kong does: decode unreserved octets, merge slashes, resolve dot segments.

    Otherwise the router could match `/api/auth/login/../logout` as a public path, and the service serve another.
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
    """Finds the target of a request. Routes with methods come first, then regular expressions, then long paths."""

    def __init__(self, routes: Iterable[tuple[Route, T]]) -> None:
        entries = [
            (frozenset(route.methods or ()), path.startswith("~"), route.regex_priority, path, target)
            for route, target in routes
            for path in route.paths
        ]
        entries.sort(key=lambda entry: (not entry[0], not entry[1], -entry[2] if entry[1] else 0, -len(entry[3])))
        self._entries = [(methods, _expression(path), target) for methods, _, _, path, target in entries]

    def match(self, method: str, path: str) -> T | None:
        """Return the target of a normalized path, or None for Kong's 404."""
        for methods, expression, target in self._entries:
            if (not methods or method in methods) and expression.match(path):
                return target
        return None
