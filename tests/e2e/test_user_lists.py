"""The lists of a user: tickets, orders, transfers. QR codes as text, SVG and PNG."""

from __future__ import annotations

import re
import struct
import zlib
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.support.concurrency import outcomes
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

PNG = b"\x89PNG\r\n\x1a\n"
SCALE, BORDER = 6, 4
A_MOMENT = timedelta(seconds=5)


def count_modules(width: int) -> int:
    """Count the modules on one side of a QR symbol from its width in pixels."""
    assert width % SCALE == 0
    return width // SCALE - 2 * BORDER


def is_qr_size(side: int) -> bool:
    """Return whether a QR version has this side: 21 to 177 modules, in steps of four."""
    return 21 <= side <= 177 and side % 4 == 1


@pytest.mark.claim("transfer/shows-sold-and-purchased")
def test_tickets_are_listed_as_purchased_and_as_sold(system: TestSystem) -> None:
    """Each ticket shows the price that its owner paid or received."""
    seller, buyer = system.person("1000.00"), system.person("500.00")
    seat, order_id = system.buy_seat(seller)
    ticket = seller.get("/api/tickets").must()["purchased"][0]
    assert (ticket["seat_id"], ticket["order_id"], ticket["status"]) == (seat, order_id, "SOLD")
    assert ticket["price"] == 1000 - seller.balance()
    assert ticket["event"]["hall_id"] == "HALL-B"
    transfer_id = system.complete_transfer(seller, buyer, seat, 77.70)
    bought, sold = buyer.get("/api/tickets").must(), seller.get("/api/tickets").must()
    assert [(t["seat_id"], float(t["price"])) for t in bought["purchased"]] == [(seat, 77.70)]
    assert bought["sold"] == sold["purchased"] == []
    (sale,) = sold["sold"]
    assert (sale["transfer_id"], sale["buyer_user_id"], float(sale["price"])) == (transfer_id, buyer.user_id, 77.70)
    system.staff().scan(buyer.qr(seat).must()["qr_payload"], "HALL-B").must()
    assert buyer.get("/api/tickets").must()["purchased"][0]["status"] == "CHECKED_IN"


def test_orders_of_the_user_come_newest_first_in_pages(system: TestSystem) -> None:
    buyer = system.person()
    made = [system.hold_seat(buyer)[1] for _ in range(5)]
    system.hold_seat(system.person())
    pages = [buyer.get(f"/api/orders?per_page=2&page={page}") for page in (1, 2, 3, 4)]
    assert [order["order_id"] for page in pages for order in page.must()] == made[::-1]
    assert pages[0].envelope["pagination"] == {"page": 1, "per_page": 2, "total": 5, "total_pages": 3}
    assert "verification_sid" not in str(pages[0].body)


@pytest.mark.claim("lock/pending-transfer-is-visible")
def test_transfers_are_those_of_the_user(system: TestSystem) -> None:
    one, two, three = (system.person() for _ in range(3))
    first = system.complete_transfer(one, two, system.insert_ticket(one), 10)
    second = system.start_transfer(two, three, system.insert_ticket(two), 10)
    seen = [{t["transfer_id"]: t["status"] for t in user.get("/api/transfers").must()} for user in (one, two, three)]
    completed, pending = {first: "COMPLETED"}, {second: "PENDING_OTP"}
    assert seen == [completed, completed | pending, pending]
    assert "verification_sid" not in str(two.get("/api/transfers").body)


def test_staff_read_any_order_and_transfer_and_list_open_disputes(system: TestSystem) -> None:
    seller, buyer, stranger, staff = *system.people(3), system.staff()
    seat, order_id = system.buy_seat(seller)
    transfer_id = system.dispute_transfer(seller, buyer, seat, 10)
    for path in (f"/api/orders/{order_id}", f"/api/transfers/{transfer_id}"):
        assert staff.get(path).must() == seller.get(path).must()
        assert stranger.get(path).status == 403
    disputes = staff.get("/api/transfers?per_page=100").must()
    assert transfer_id in {transfer["transfer_id"] for transfer in disputes}
    assert {transfer["status"] for transfer in disputes} == {"DISPUTED"}
    assert "verification_sid" not in str(staff.get(f"/api/transfers/{transfer_id}").body)


@pytest.mark.claim("qr/holds-time", "qr/created-on-request", "qr/for-owner-only")
def test_a_qr_has_its_times_and_expires_after_60_seconds(system: TestSystem) -> None:
    owner = system.person()
    answer = owner.qr(system.insert_ticket(owner))
    assert answer.data.keys() == {"qr_payload", "generated_at", "expires_at", "ttl_seconds"}
    assert answer.data["ttl_seconds"] == 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.data["generated_at"])
    generated, expires = (datetime.fromisoformat(answer.data[name]) for name in ("generated_at", "expires_at"))
    assert abs(datetime.now(UTC) - generated) < A_MOMENT
    assert expires - generated == timedelta(seconds=60)
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_qr_is_served_as_svg_and_as_png(system: TestSystem) -> None:
    owner = system.person()
    path = f"/api/tickets/{system.insert_ticket(owner)}/qr"
    svg, png = (owner.call("GET", path, headers={"Accept": kind}) for kind in ("image/svg+xml", "image/png"))
    assert (svg.status, svg.headers["Content-Type"]) == (200, "image/svg+xml")
    assert b"<svg" in svg.body
    width, height = (int(found) for found in re.findall(rb'(?:width|height)="(\d+)"', svg.body)[:2])
    assert width == height
    assert is_qr_size(count_modules(width))
    assert (png.status, png.headers["Content-Type"]) == (200, "image/png")
    assert png.body.startswith(PNG)
    length, kind, wide, high = struct.unpack(">I4sII", png.body[8:24])
    assert (length, kind, wide) == (13, b"IHDR", high)
    assert is_qr_size(count_modules(wide))
    assert has_finder_pattern(png.body, wide)
    assert {svg.headers["Cache-Control"], png.headers["Cache-Control"]} == {"no-store"}


def has_finder_pattern(png: bytes, width: int) -> bool:
    """Return whether the top row of the symbol has 7 dark modules between the quiet zone and a light module."""
    depth, colour = png[24], png[25]
    assert (depth, colour) in ((1, 0), (1, 3)), "one bit per pixel"
    data, position = b"", 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        if png[position + 4 : position + 8] == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += 12 + length
    stride = 1 + (width + 7) // 8
    row = zlib.decompress(data)[stride * (BORDER * SCALE) :][:stride]
    assert row[0] == 0, "an unfiltered row"
    bits = "".join(f"{byte:08b}" for byte in row[1:])[:width]
    squares = bits[SCALE // 2 :: SCALE]
    light, dark = squares[0], "10"[int(squares[0])]
    return squares.startswith(light * BORDER + dark * 7 + light)


@pytest.mark.claim("qr/for-owner-only")
def test_only_the_owner_of_an_unused_ticket_gets_a_qr(system: TestSystem) -> None:
    owner, stranger, staff = system.person(), system.person(), system.staff()
    seat = system.insert_ticket(owner)
    answers = [stranger.qr(seat), owner.qr(str(uuid4())), owner.qr(system.seat())]
    assert [a.error_code for a in answers] == ["NOT_SEAT_OWNER", "SEAT_NOT_FOUND", "NOT_SEAT_OWNER"]
    staff.scan(owner.qr(seat).must()["qr_payload"], "HALL-B").must()
    assert outcomes([owner.qr(seat)]) == {"409 SEAT_UNAVAILABLE": 1}
