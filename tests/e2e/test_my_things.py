"""My tickets, my orders, my transfers, my QR as a picture (issue 5)."""

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


def modules(width: int) -> int:
    """How many squares a side the symbol itself has, of its width in pixels."""
    assert width % SCALE == 0
    return width // SCALE - 2 * BORDER


def is_qr_size(side: int) -> bool:
    """QR versions 1 to 40 have 21 to 177 modules a side, in steps of four."""
    return 21 <= side <= 177 and side % 4 == 1


@pytest.mark.claim("transfer/shows-sold-and-purchased")
def test_tickets_are_shown_as_purchased_and_as_sold_with_what_they_cost_whom(system: TestSystem) -> None:
    seller, buyer = system.person("1000.00"), system.person("500.00")
    seat, order_id = system.buy_seat(seller)
    kept, _ = seller.get("/api/tickets").must()["purchased"][0], None
    assert (kept["seat_id"], kept["order_id"], kept["status"]) == (seat, order_id, "SOLD")
    assert kept["price"] == 1000 - seller.balance()
    assert kept["event"]["hall_id"] == "HALL-B"
    transfer_id = system.complete_transfer(seller, buyer, seat, 77.70)
    mine, theirs = buyer.get("/api/tickets").must(), seller.get("/api/tickets").must()
    assert [(t["seat_id"], float(t["price"])) for t in mine["purchased"]] == [(seat, 77.70)]
    assert mine["sold"] == theirs["purchased"] == []
    (sold,) = theirs["sold"]
    assert (sold["transfer_id"], sold["buyer_user_id"], float(sold["price"])) == (transfer_id, buyer.user_id, 77.70)
    system.staff().scan(buyer.qr(seat).must()["qr_payload"], "HALL-B").must()
    assert buyer.get("/api/tickets").must()["purchased"][0]["status"] == "CHECKED_IN"


def test_orders_come_newest_first_page_by_page_and_are_only_mine(system: TestSystem) -> None:
    buyer = system.person()
    made = [system.hold_seat(buyer)[1] for _ in range(5)]
    system.hold_seat(system.person())
    pages = [buyer.get(f"/api/orders?per_page=2&page={page}") for page in (1, 2, 3, 4)]
    assert [order["order_id"] for page in pages for order in page.must()] == made[::-1]
    assert pages[0].envelope["pagination"] == {"page": 1, "per_page": 2, "total": 5, "total_pages": 3}
    assert "verification_sid" not in str(pages[0].body)


@pytest.mark.claim("lock/pending-transfer-is-visible")
def test_transfers_are_those_that_i_am_a_party_of(system: TestSystem) -> None:
    one, two, three = (system.person() for _ in range(3))
    first = system.complete_transfer(one, two, system.insert_ticket(one), 10)
    second = system.start_transfer(two, three, system.insert_ticket(two), 10)
    seen = [{t["transfer_id"]: t["status"] for t in who.get("/api/transfers").must()} for who in (one, two, three)]
    over, pending = {first: "COMPLETED"}, {second: "PENDING_OTP"}
    assert seen == [over, over | pending, pending]
    assert "verification_sid" not in str(two.get("/api/transfers").body)


@pytest.mark.claim("qr/holds-time", "qr/created-on-request", "qr/for-owner-only")
def test_a_qr_comes_with_its_times_and_lives_for_60_seconds(system: TestSystem) -> None:
    owner = system.person()
    answer = owner.qr(system.insert_ticket(owner))
    assert answer.data.keys() == {"qr_payload", "generated_at", "expires_at", "ttl_seconds"}
    assert answer.data["ttl_seconds"] == 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer.data["generated_at"])
    made, over = (datetime.fromisoformat(answer.data[name]) for name in ("generated_at", "expires_at"))
    assert abs(datetime.now(UTC) - made) < A_MOMENT
    assert over - made == timedelta(seconds=60)
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_qr_comes_as_svg_and_as_png_of_a_qr_symbols_size(system: TestSystem) -> None:
    owner = system.person()
    path = f"/api/tickets/{system.insert_ticket(owner)}/qr"
    svg, png = (owner.call("GET", path, headers={"Accept": kind}) for kind in ("image/svg+xml", "image/png"))
    assert (svg.status, svg.headers["Content-Type"]) == (200, "image/svg+xml")
    assert b"<svg" in svg.body
    width, height = (int(found) for found in re.findall(rb'(?:width|height)="(\d+)"', svg.body)[:2])
    assert width == height
    assert is_qr_size(modules(width))
    assert (png.status, png.headers["Content-Type"]) == (200, "image/png")
    assert png.body.startswith(PNG)
    length, kind, wide, high = struct.unpack(">I4sII", png.body[8:24])
    assert (length, kind, wide) == (13, b"IHDR", high)
    assert is_qr_size(modules(wide))
    assert dark_finder(png.body, wide)
    assert {svg.headers["Cache-Control"], png.headers["Cache-Control"]} == {"no-store"}


def dark_finder(png: bytes, width: int) -> bool:
    """Whether the row through the top left finder pattern reads 7 dark modules after the quiet zone."""
    depth, colour = png[24], png[25]
    assert (depth, colour) in ((1, 0), (1, 3)), "one bit a pixel"
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
def test_only_the_owner_gets_a_qr_and_only_while_the_ticket_is_good(system: TestSystem) -> None:
    owner, stranger, staff = system.person(), system.person(), system.staff()
    seat = system.insert_ticket(owner)
    answers = [stranger.qr(seat), owner.qr(str(uuid4())), owner.qr(system.seat())]
    assert [a.error_code for a in answers] == ["NOT_SEAT_OWNER", "SEAT_NOT_FOUND", "NOT_SEAT_OWNER"]
    staff.scan(owner.qr(seat).must()["qr_payload"], "HALL-B").must()
    assert outcomes([owner.qr(seat)]) == {"409 SEAT_UNAVAILABLE": 1}
