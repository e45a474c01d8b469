"""Fixtures of the browser tests: one Chromium for the folder, and visitors whose pages must have no problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser.visitor import Visitor
from tests.support.browser import PHONE, Launch, open_page, record_problems, run_playwright
from tests.support.people import Person
from tests.support.system import TestSystem

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="package")
def launch() -> Iterator[Launch]:
    """A function that starts Chromium with flags."""
    with run_playwright() as start:
        yield start


@pytest.fixture(scope="package")
def chromium(launch: Launch) -> Browser:
    """The browser of all tests that need no special flags."""
    return launch()


@pytest.fixture
def visit(chromium, system: TestSystem) -> Iterator[Callable[..., Visitor]]:
    """`visit(person, size)`: a new browser window of the web client, logged in as this person.

    After the test, no page may have had an uncaught error, a violation of its policy, or a request to a foreign host.
    """
    problems: list[list[str]] = []
    visitors: list[Visitor] = []

    def open_visitor(person: Person | None = None, size: tuple[int, int] = PHONE, browser=None) -> Visitor:
        visitor = Visitor(open_page(browser or chromium, size), system)
        problems.append(record_problems(visitor.page))
        visitors.append(visitor)
        visitor.open()
        if person is not None:
            visitor.log_in(person)
        return visitor

    yield open_visitor
    for visitor in visitors:
        visitor.page.context.close()
    assert [each for each in problems if each] == []
    assert [foreign for visitor in visitors for foreign in visitor.foreign_requests] == []
