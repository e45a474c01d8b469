"""Claims against markers: every claim is carried by a test, and every marker names a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.report.claims import Claim

Carried = dict[str, list[str]]
"""Claim id: the tests that carry it."""


def carried(tests: Iterable[tuple[str, Iterable[str]]]) -> Carried:
    """Turn (test, its claims) around."""
    found: Carried = {}
    for test, claims in tests:
        for claim in dict.fromkeys(claims):
            found.setdefault(claim, []).append(test)
    return found


def unknown(claims: Mapping[str, Claim], found: Carried) -> list[str]:
    """What markers name and no claim is called; or a claim that is declared open, and tested all the same."""
    lines = [f"no claim is called {claim}: {tests[0]}" for claim, tests in found.items() if claim not in claims]
    built = [claim for claim in claims.values() if claim.open and claim.id in found]
    return lines + [f"claim {claim.id} is declared open, yet {found[claim.id][0]} carries it" for claim in built]


def untested(claims: Mapping[str, Claim], found: Carried) -> list[str]:
    """The claims that no test carries and that are not declared open."""
    return [f"no test carries {c.id}: {c.text}" for c in claims.values() if not c.open and c.id not in found]
