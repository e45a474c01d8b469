"""The inbox of the fake SMU in a browser: typed text stays, new messages appear, and a phone shows all of it."""

from __future__ import annotations

import pytest

from tests.support.browser import PHONE, open_page, record_problems
from tests.support.system import TestSystem

pytestmark = pytest.mark.e2e


def test_inbox_keeps_typed_text_while_messages_arrive(system: TestSystem, chromium) -> None:
    person = system.person(flagged=True)
    page = open_page(chromium, PHONE)
    problems = record_problems(page)
    page.goto(system.smu.url)
    page.get_by_label("E-mail address").fill("half an addr")
    system.hold_seat(person)
    page.get_by_text(system.code(person), exact=True).wait_for()
    assert page.get_by_label("E-mail address").input_value() == "half an addr"
    assert page.evaluate("document.activeElement.name") == "email"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]

    page.get_by_label("E-mail address").fill("")
    page.get_by_label("Mobile number").fill(f"{person.phone[:3]} {person.phone[3:7]} {person.phone[7:]}")
    page.get_by_role("button", name="Show").click()
    page.get_by_text(system.code(person), exact=True).wait_for()
    page.context.close()
    assert problems == []


def test_frame_of_an_email_has_the_height_of_its_content(system: TestSystem, chromium) -> None:
    person = system.person()
    system.buy_seat(person)
    page = open_page(chromium, PHONE)
    page.goto(f"{system.smu.url}/inbox?email={person.email}")
    frame = page.locator("iframe").first
    frame.wait_for()
    measure = "frame => [frame.clientHeight, frame.contentDocument.documentElement.scrollHeight]"

    def has_height_of_content() -> bool:
        height, content = frame.evaluate(measure)
        return bool(content <= height < 600)

    system.wait_until("the frame is as high as its content", has_height_of_content)
    page.context.close()
