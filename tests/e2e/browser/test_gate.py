"""Staff scan tickets with a camera and with a hand scanner that types."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser.visitor import Visitor
from tests.support.browser import DESKTOP, Launch
from tests.support.system import TestSystem

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Request

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

WIDTH, HEIGHT = 640, 480
# Draws a PNG in the middle of a white frame and returns the brightness of each pixel.
DRAW = """async ([png, width, height]) => {
  const picture = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const context = Object.assign(document.createElement("canvas"), {width, height}).getContext("2d");
  const side = height * 0.9;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, (width - side) / 2, (height - side) / 2, side, side);
  const {data} = context.getImageData(0, 0, width, height);
  let text = "";
  for (let at = 0; at < data.length; at += 4) text += String.fromCharCode(data[at]);
  return btoa(text);
}"""


def film(code: Locator, browser: Browser, path: Path) -> None:
    """Write a video in which a camera sees this QR code."""
    png = base64.b64encode(code.screenshot()).decode()
    page = browser.new_page()
    brightness = base64.b64decode(page.evaluate(DRAW, [png, WIDTH, HEIGHT]))
    page.close()
    grey = b"\x80" * (WIDTH * HEIGHT // 2)
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\nFRAME\n".encode()
    path.write_bytes(header + brightness + grey)


def choose_event(gate: Visitor) -> None:
    gate.open("gate")
    gate.click("HALL-B · Coldplay")  # other tests have added events in this hall
    gate.page.get_by_role("heading", name="Hand scanner").wait_for()


@pytest.mark.claim("layers/client-scans-tickets")
def test_camera_admits_the_guest_once(
    system: TestSystem, visit, launch: Launch, chromium: Browser, tmp_path: Path
) -> None:
    owner, staff = system.person(), system.staff()
    seat = system.insert_ticket(owner)
    film(visit(owner).open_ticket(seat), chromium, tmp_path / "camera.y4m")
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    browser = launch(*camera, f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}")
    gate = visit(staff, browser=browser)
    choose_event(gate)
    gate.click("Start the camera")
    gate.page.locator(".verdict.good").wait_for()
    assert system.seat_status(seat) == "CHECKED_IN"
    gate.page.locator(".verdict").wait_for(state="detached")
    assert gate.page.locator(".scans li").count() == 1, "the code is still in front of the camera"
    gate.click("Stop the camera")
    gate.click("Start the camera")
    gate.page.clock.install()
    gate.page.clock.fast_forward(5000)  # the same guest returns
    gate.see("Do not admit")
    gate.see("Already used")
    gate.see("SGT by you")
    browser.close()


def test_double_scan_by_hand_shares_one_key(system: TestSystem, visit) -> None:
    owner, staff = system.person(), system.staff()
    code = owner.qr(system.insert_ticket(owner)).must()["qr_payload"]
    gate = visit(staff, DESKTOP)
    choose_event(gate)
    keys: list[str] = []
    gate.page.on(
        "request", lambda sent: keys.append(sent.headers.get("idempotency-key", "")) if is_scan(sent) else None
    )
    for _ in range(2):
        gate.page.get_by_label("Scan or type").fill(code)
        with gate.page.expect_response("**/api/verify"):
            gate.page.keyboard.press("Enter")
        gate.page.locator(".verdict.good").wait_for()
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert gate.page.locator(".scans li").count() == 1


def is_scan(request: Request) -> bool:
    return bool(request.method == "POST" and request.url.endswith("/api/verify"))


def test_refused_ticket_shows_the_reason_of_the_api(system: TestSystem, visit) -> None:
    gate = visit(system.staff())
    choose_event(gate)
    gate.page.get_by_label("Scan or type").fill("not a ticket")
    gate.page.keyboard.press("Enter")
    gate.see("Do not admit")
    gate.see("This QR code is not a TicketRemaster ticket")
    gate.click("Next guest")
    gate.page.locator(".verdict").wait_for(state="detached")
    gate.follow("Support")
    gate.follow("Gate")
    gate.see("Not a ticket")  # the list of scans is still there
