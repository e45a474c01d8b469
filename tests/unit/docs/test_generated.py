"""The generated pages and pictures of docs/ are current. `make docs` updates them."""

from __future__ import annotations

import pytest

from harness.report import screenshot
from harness.runtime.compose import ROOT
from tests.doc_pages import settings_page
from tests.doc_pages.files import generate

pytestmark = pytest.mark.unit

FILES = generate()


@pytest.mark.parametrize("name", FILES)
def test_generated_file_is_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == FILES[name], "run `make docs`"


def test_every_variable_of_the_example_file_has_a_description() -> None:
    described = settings_page.describe_examples()
    assert set(settings_page.read_variables()) <= set(described) | set(settings_page.DESCRIPTIONS)


def test_pictures_of_the_report_show_the_present_template() -> None:
    """`python -m harness.report.screenshot` takes them again after a run."""
    assert screenshot.STAMP.read_text(encoding="utf-8") == screenshot.stamp()
