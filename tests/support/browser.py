"""A headless Chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.runtime import packages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = ("--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
AS_ROOT = ("--no-sandbox",) if os.geteuid() == 0 else ()
WAIT_MS = 15_000
PHONE, DESKTOP = (390, 844), (1280, 800)

Launch = Callable[..., "Browser"]


@contextmanager
def run_playwright() -> Iterator[Launch]:
    """Yield a function that starts Chromium with flags. All browsers end with the block.

    Skips the test visibly if there is no Chromium and this user cannot install it.
    """
    program = packages.ensure_browser()
    if program is None:
        pytest.skip("NO BROWSER: the pages were not tested (apt-get install chromium)")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:

        def launch(*flags: str) -> Browser:
            return playwright.chromium.launch(executable_path=program, args=[*FLAGS, *AS_ROOT, *flags])

        yield launch


def open_page(browser: Browser, size: tuple[int, int] = PHONE) -> Page:
    """Open an empty page of its own context, without cookies and storage of other pages."""
    width, height = size
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(WAIT_MS)
    return page


def take_screenshot(page: Page, path: Path) -> None:
    """Write a PNG of the window."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)


def record_problems(page: Page) -> list[str]:
    """Return a list that receives each uncaught error and each violation of the Content-Security-Policy."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None)
    return problems
