"""A person at the web client, with the steps of a purchase."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.support.people import PASSWORD, Person
from tests.support.system import TestSystem

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

BIG_EVENT = "e0e0e0e0-0000-0000-0000-000000000002"
SEATS_PER_ROW = 50


class Visitor:
    """One browser window."""

    def __init__(self, page: Page, system: TestSystem) -> None:
        self.page, self._system = page, system
        self.url = system.stack.url("web-client")
        own = {urlsplit(system.stack.url(name)).netloc for name in ("web-client", "api-gateway", "fake-stripe")}
        self.foreign_requests: list[str] = []
        page.on("request", lambda sent: self._check_host(sent.url, own))

    def _check_host(self, url: str, own: set[str]) -> None:
        if urlsplit(url).scheme.startswith("http") and urlsplit(url).netloc not in own:
            self.foreign_requests.append(url)

    def open(self, path: str = "") -> None:
        """Open a page of the web client, in the same session."""
        self.page.goto(f"{self.url}/#/{path}")

    def log_in(self, person: Person) -> None:
        self.page.get_by_label("E-mail").fill(person.email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.click("Log in")
        self.page.get_by_role("navigation").wait_for()

    def click(self, name: str) -> None:
        """Click the button with this text, or with a text that begins like this."""
        self.page.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).first.click()

    def follow(self, name: str) -> None:
        """Click the link that contains this text."""
        self.page.get_by_role("link", name=name).first.click()

    def see(self, text: str) -> Locator:
        """Wait until a text is visible."""
        found = self.page.get_by_text(text).first
        found.wait_for()
        return found

    def read_alert(self) -> str:
        """Wait for an error message and return it."""
        alert = self.page.get_by_role("alert").first
        alert.wait_for()
        return alert.inner_text()

    # ── steps of a purchase

    def choose_seat(self, seat: str) -> None:
        """Choose a seat of the event with 5,000 seats."""
        number = int(seat.rpartition("-")[2]) - 1
        self.open(f"events/{BIG_EVENT}")
        self.click(f"Row R{number // SEATS_PER_ROW + 1:03}")
        self.page.locator(f'[data-seat="{seat}"]').click()

    def reserve(self, seat: str) -> None:
        """Choose a seat and reserve it. Waits for the checkout."""
        self.choose_seat(seat)
        self.click("Reserve this seat")
        self.page.get_by_role("timer").wait_for()

    @property
    def order_id(self) -> str:
        """The id of the order on the page."""
        return self.page.url.rpartition("/")[2]

    def enter_code(self, person: Person) -> None:
        """Type the newest code that this person got by SMS."""
        field = self.page.locator("input.code").first
        field.wait_for()  # until then, no code may have been sent
        field.fill(self._system.code(person))

    def open_ticket(self, seat: str) -> Locator:
        """Open a ticket and wait for its QR code."""
        self.open(f"tickets/{seat}")
        code = self.page.get_by_role("img", name="QR code")
        code.wait_for()
        return code

    def read_code(self) -> str:
        """Return the payload of the QR code on the page."""
        self.see("Show the code as text").click()
        return self.page.get_by_label("Code", exact=True).input_value()
