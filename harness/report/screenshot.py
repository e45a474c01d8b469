"""`python -m harness.report.screenshot [REPORT]`: takes the pictures of the report that README shows.

Chromium takes `docs/img/report.png` of its top. If a test of the stack failed, it takes `docs/img/failure.png` of that
test with its details open. The hash of the template in `docs/img/page.sha256` lets a test find stale pictures.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from harness.command_line import run_main
from harness.runtime.compose import ROOT

PICTURES = ROOT / "docs" / "img"
TEMPLATE = Path(__file__).with_name("page.html")
STAMP = PICTURES / "page.sha256"
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT, FAILURE_HEIGHT = 1280, 860, 1120


def stamp() -> str:
    """Return the hash of the template from which the pictures are made."""
    return hashlib.sha256(TEMPLATE.read_bytes()).hexdigest() + "\n"


def main(report: Path) -> None:
    """Take the pictures of one report."""
    # Only this command needs the package, which `make demo` does without.
    from playwright.sync_api import FloatRect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.resolve().as_uri())
        page.screenshot(path=PICTURES / "report.png")
        failure = page.locator("h2#failures ~ details", has_text="log lines in time order").first
        if failure.count():
            page.locator("h2#failures ~ details").evaluate_all("all => all.forEach(one => { one.open = false })")
            failure.evaluate("it => [it, ...it.querySelectorAll('details')].forEach(one => { one.open = true })")
            box = failure.bounding_box() or {"y": 0.0}
            clip = FloatRect(x=0, y=box["y"], width=WIDTH, height=FAILURE_HEIGHT)
            page.screenshot(path=PICTURES / "failure.png", full_page=True, clip=clip)
        browser.close()
    STAMP.write_text(stamp(), encoding="utf-8")


if __name__ == "__main__":
    run_main(lambda: main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "reports" / "index.html"))
