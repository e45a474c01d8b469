"""Every page is accessible on a phone and on a screen, light to load and quick to show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import pytest

from clients.serve import HOME
from tests.e2e.browser.visitor import BIG_EVENT, Visitor
from tests.support.browser import DESKTOP, PHONE
from tests.support.system import TestSystem

pytestmark = pytest.mark.e2e

AXE = (HOME / "node_modules" / "axe-core" / "axe.min.js").read_text
SERIOUS = ("serious", "critical")
SMALL_EVENT = BIG_EVENT.replace("02", "01")
MAX_BYTES, MAX_PAINT_MS = 150_000, 1000
TRIES = 3  # the first paint on a busy machine


LOOKS: tuple[tuple[tuple[int, int], Literal["light", "dark"]], ...] = (
    (PHONE, "light"),
    (DESKTOP, "light"),
    (DESKTOP, "dark"),
    (PHONE, "dark"),
)


class Inspector:
    """Collects what is wrong on each page of a visitor, on a phone and on a screen, in light and in dark."""

    def __init__(self, visitor: Visitor, problems: dict[str, set[str]]) -> None:
        self._page, self._problems = visitor.page, problems

    def inspect(self, name: str) -> None:
        """Run axe-core on the page. A dark page has other colours than a light one, but the same content."""
        self._page.evaluate(AXE())
        found: set[str] = set()
        for size, scheme in LOOKS:
            self._page.set_viewport_size({"width": size[0], "height": size[1]})
            self._page.emulate_media(color_scheme=scheme)
            found |= self._run(["color-contrast"] if scheme == "dark" else None)
            if self._page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.add(f"the page is wider than {size[0]} px")
        if found:
            self._problems[name] = found

    def _run(self, rules: list[str] | None) -> set[str]:
        options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
        violations = self._page.evaluate("options => axe.run(options)", options)["violations"]
        serious = (each for each in violations if each["impact"] in SERIOUS)
        return {f"{each['id']}: {node['html'][:150]}" for each in serious for node in each["nodes"]}


@pytest.fixture
def problems() -> dict[str, set[str]]:
    """The problems of each page."""
    return {}


def test_axe_finds_nothing_serious_on_the_pages_of_customers(system: TestSystem, visit, problems) -> None:
    customer, other = system.people(2)
    seat, second = system.insert_tickets(customer, 2)
    held = system.hold_seat(customer)[1]
    system.start_transfer(customer, other, seat)
    visitor = visit()
    inspector = Inspector(visitor, problems)
    inspector.inspect("login")
    visitor.log_in(customer)
    pages: dict[str, Callable[[], object]] = {
        "events": partial(visitor.see, "Coldplay"),
        f"events/{BIG_EVENT}": partial(visitor.click, "Row R100"),
        f"events/{SMALL_EVENT}": visitor.page.locator("[data-seat]").first.wait_for,
        f"orders/{held}": visitor.page.get_by_role("timer").wait_for,
        "orders": partial(visitor.see, "Waits for payment"),
        "tickets": visitor.page.get_by_role("link", name="Show the ticket").first.wait_for,
        f"tickets/{second}": lambda: visitor.see("Sell this ticket").click(),
        "transfers": partial(visitor.see, "Waits for codes"),
        "credits": partial(visitor.click, "Continue to the card"),
    }
    for path, wait in pages.items():
        visitor.open(path)
        wait()
        inspector.inspect(path)
    assert problems == {}


def test_axe_finds_nothing_serious_on_the_pages_of_staff(system: TestSystem, visit, problems) -> None:
    seller, buyer = system.people(2)
    system.dispute_transfer(seller, buyer, system.insert_ticket(seller))
    visitor = visit(system.staff())
    inspector = Inspector(visitor, problems)
    visitor.click("HALL-B")
    visitor.page.get_by_role("heading", name="Hand scanner").wait_for()
    inspector.inspect("gate")
    visitor.page.keyboard.type("no ticket\n")
    visitor.see("Do not admit")
    inspector.inspect("verdict")
    visitor.open("support")
    visitor.click("Reverse…")
    inspector.inspect("support")
    assert problems == {}


def test_first_page_is_light_and_quick(visit) -> None:
    paints = []
    for _ in range(TRIES):
        visitor = visit()
        visitor.page.get_by_label("E-mail").wait_for()
        paints.append(visitor.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        sent = visitor.page.evaluate(
            "performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize ?? 0), 0)"
        )
        assert 20_000 < sent <= MAX_BYTES
    assert min(paints) <= MAX_PAINT_MS, paints


def test_seats_can_be_chosen_with_the_keyboard(system: TestSystem, visit) -> None:
    visitor = visit(system.person(), DESKTOP)
    visitor.open(f"events/{BIG_EVENT}")
    row = visitor.page.get_by_role("button", name="Row R099")
    row.focus()
    visitor.page.keyboard.press("Enter")
    focused = visitor.page.locator("[data-seat]:focus")
    first = focused.get_attribute("aria-label")
    visitor.page.keyboard.press("ArrowRight")
    assert focused.get_attribute("aria-label") != first
    visitor.page.keyboard.press("Enter")
    assert focused.get_attribute("aria-pressed") == "true"
