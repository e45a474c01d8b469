"""A customer buys a ticket on a phone, also when a reply is lost, the hold expires or the session ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.browser.visitor import SEATS_PER_ROW, Visitor
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

SHORT_HOLD = "4"


@pytest.fixture
def short_holds(system: TestSystem) -> Iterator[None]:
    """Restart the orchestrator with a hold time of a few seconds."""
    system.stack.restart("orchestrator-service", {"HOLD_TTL_SECONDS": SHORT_HOLD})
    yield
    system.stack.restart("orchestrator-service", {})
    system.wait_until("every service is healthy", system.is_healthy)


def read_seconds(visitor: Visitor) -> int:
    minutes, _, seconds = visitor.page.get_by_role("timer").locator("b").inner_text().partition(":")
    return 60 * int(minutes) + int(seconds)


@pytest.mark.claim("layers/client-buys-tickets")
def test_customer_buys_a_seat_and_enters_with_its_qr_code(system: TestSystem, visit) -> None:
    person, seat = system.person("350.00"), system.seat()
    visitor = visit(person)
    visitor.see("Coldplay")
    visitor.reserve(seat)
    before = read_seconds(visitor)
    assert 270 < before <= 301  # the Date header has whole seconds
    system.wait_until("the time runs", lambda: read_seconds(visitor) < before)
    visitor.click("Pay")
    visitor.see("The ticket is yours")
    assert system.seat_status(seat) == "SOLD"
    visitor.follow("Show the ticket")
    visitor.page.get_by_role("img", name="QR code").wait_for()
    scanned = system.staff().scan(visitor.read_code(), "HALL-B").must()
    assert scanned["result"] == "SUCCESS"
    visitor.see("This ticket was used at the gate")
    visitor.page.get_by_role("img", name="QR code").wait_for(state="detached")


def test_flagged_customer_enters_a_code_before_the_payment(system: TestSystem, visit) -> None:
    person, seat = system.person(flagged=True), system.seat()
    visitor = visit(person)
    visitor.reserve(seat)
    wrong = "000000" if system.code(person) != "000000" else "111111"
    visitor.page.get_by_label("Code from the SMS").fill(wrong)
    visitor.click("Verify the code")
    assert "code is wrong" in visitor.read_alert()
    visitor.enter_code(person)
    visitor.click("Verify the code")
    visitor.click("Pay")
    visitor.see("The ticket is yours")


def test_of_two_browsers_one_gets_the_seat(system: TestSystem, visit) -> None:
    seat = system.seat()
    visitors = [visit(person) for person in system.people(2)]
    for visitor in visitors:
        visitor.choose_seat(seat)
    for visitor in visitors:
        visitor.click("Reserve this seat")
    visitors[0].page.get_by_role("timer").wait_for()
    assert visitors[1].read_alert() == "This seat is no longer available. Please select another."
    visitors[1].page.locator(f'[data-seat="{seat}"].held').wait_for()  # the map has refreshed itself
    visitors[0].page.go_back()
    visitors[0].see("is held for you")
    number = int(seat.rpartition("-")[2]) - 1
    visitors[0].click(f"Row R{number // SEATS_PER_ROW + 1:03}")
    visitors[0].page.locator(f'[data-seat="{seat}"].own').click()
    visitors[0].page.get_by_role("timer").wait_for()


@pytest.mark.usefixtures("short_holds")
def test_page_shows_that_the_hold_has_expired(system: TestSystem, visit) -> None:
    person, seat = system.person("10.00"), system.seat()
    visitor = visit(person)
    visitor.reserve(seat)
    assert read_seconds(visitor) <= int(SHORT_HOLD) + 1
    assert visitor.page.get_by_role("button", name="Pay").is_disabled(), "10 credits are not enough"
    visitor.see("has expired")
    order_id = visitor.order_id
    system.wait_until("the order has failed", lambda: system.order_status(order_id) == "FAILED")
    visitor.see("ended without a purchase")
    assert person.balance() == 10


def test_lost_connection_leaves_a_way_on(system: TestSystem, visit) -> None:
    visitor = visit()
    visitor.page.route("**/tickets.js*", lambda route: route.abort())
    with visitor.page.expect_request_finished(lambda request: request.url.endswith("/orders.js")):
        visitor.page.reload()
    visitor.log_in(system.person())
    visitor.follow("Tickets")
    assert visitor.read_alert() == "This page could not be loaded. Check your connection."
    visitor.page.unroute("**/tickets.js*")
    visitor.click("Try again")
    visitor.see("no tickets yet")
    visitor.page.context.set_offline(True)
    visitor.follow("Orders")  # the browser has loaded this page in advance
    assert visitor.read_alert().endswith("The page tries again by itself.")
    visitor.page.context.set_offline(False)
    visitor.see("no orders yet")


def test_lost_reply_of_a_payment_is_looked_up_and_charged_once(system: TestSystem, visit) -> None:
    person, seat = system.person(), system.seat()
    visitor = visit(person)
    visitor.reserve(seat)
    payments = lose_first_reply(visitor, "**/api/pay")
    visitor.click("Pay")
    visitor.see("The ticket is yours")
    assert len(payments) == 1, "the order was looked up, so nothing was paid again"
    sql = "SELECT count(*) AS charges FROM credit_entries WHERE user_id = %s AND amount < 0"
    assert system.rows("users_db", sql, person.user_id) == [{"charges": 1}]


def test_lost_reply_of_a_reservation_repeats_it_under_one_key(system: TestSystem, visit) -> None:
    person, seat = system.person(), system.seat()
    visitor = visit(person)
    visitor.choose_seat(seat)
    keys = lose_first_reply(visitor, "**/api/reserve")
    visitor.click("Reserve this seat")
    visitor.page.get_by_role("timer").wait_for()
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(person.get("/api/orders").must()) == 1


def lose_first_reply(visitor: Visitor, address: str) -> list[str | None]:
    """Let the first POST to an address have its effect and lose its reply. Returns the keys of all POSTs."""
    keys: list[str | None] = []

    def lose(route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        keys.append(route.request.headers.get("idempotency-key"))
        if len(keys) > 1:
            route.continue_()
            return
        route.fetch()
        route.abort()

    visitor.page.route(address, lose)
    return keys


def test_logout_elsewhere_ends_the_session_of_the_page(system: TestSystem, visit) -> None:
    person = system.person()
    visitor = visit(person)
    with visitor.page.expect_request("**/api/orders*") as sent:
        visitor.open("orders")
    token = sent.value.headers["authorization"].removeprefix("Bearer ")
    system.secrets.add(token)
    visitor.see("no orders yet")
    system.visitor().call("POST", "/api/auth/logout", {}, token=token).must(200)
    visitor.see("This session was revoked. Log in again.")
    visitor.page.get_by_label("Password").wait_for()


def test_log_out_forgets_the_tokens(system: TestSystem, visit) -> None:
    visitor = visit(system.person())
    visitor.open("credits")
    visitor.see("credits to spend")
    visitor.click("Log out")
    visitor.page.get_by_label("Password").wait_for()
    visitor.page.wait_for_url("**/#/")  # the next user starts at the first page
    assert visitor.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
