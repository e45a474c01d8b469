"""Checks that every claim is carried by a test, and that every marker names a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.report.claims import Claim

Carried = dict[str, list[str]]
"""Claim id: the tests that carry it."""


def group_by_claim(tests: Iterable[tuple[str, Iterable[str]]]) -> Carried:
    """Return the tests of each claim, given each test with its claims."""
    found: Carried = {}
    for test, claims in tests:
        for claim in dict.fromkeys(claims):
            found.setdefault(claim, []).append(test)
    return found


def find_unknown(claims: Mapping[str, Claim], found: Carried) -> list[str]:
    """Return an error line for each unknown id, and for each claim that is declared open and yet has a test."""
    lines = [f"unknown claim {claim}: {tests[0]}" for claim, tests in found.items() if claim not in claims]
    built = [claim for claim in claims.values() if claim.open and claim.id in found]
    return lines + [f"claim {claim.id} is declared open, but {found[claim.id][0]} carries it" for claim in built]


def find_untested(claims: Mapping[str, Claim], found: Carried) -> list[str]:
    """Return an error line for each claim that has no test and is not declared open."""
    return [f"no test carries {c.id}: {c.text}" for c in claims.values() if not c.open and c.id not in found]
