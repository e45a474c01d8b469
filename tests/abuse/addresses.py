"""Addresses of attackers. Linux accepts every address of 127.0.0.0/8, and the gateway sees each as another client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import urllib3

from tests.support.people import Person

_numbers = count(1)


def new_addresses(number: int) -> list[str]:
    """Return addresses that no other test of this session uses, from 127.1.0.1 on."""
    return [_format(next(_numbers)) for _ in range(number)]


def _format(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


def from_address(person: Person, address: str) -> Person:
    """The same user, as a client that calls from `address`. In containers the gateway sees one address for all."""
    pool = urllib3.PoolManager(maxsize=64, retries=False, source_address=(address, 0))
    return replace(person, pool=pool)


def spread(people: list[Person]) -> Iterator[Person]:
    """Yield each user as a client of an address of its own."""
    for person, address in zip(people, new_addresses(len(people)), strict=True):
        yield from_address(person, address)
