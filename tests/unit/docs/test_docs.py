"""The pages agree with the project: links resolve, shown code is current, and named files and make targets exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.dev import doc_snippets
from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

PAGES = doc_snippets.pages()
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_PATH = re.compile(r"`((?:services|tests|harness|fakes|specs|docs|deploy|proto|reports)/[a-z0-9_./-]+)`")
_TARGET = re.compile(r"`make ([a-z0-9-]+)")
_COMMAND_MARK = re.compile(r"<!-- (run:.*|not run: \w.*) -->")
CREATED_LATER = ("reports/", "tests/saga/scratch")  # by a run, or by the reader of the tutorial


def anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown viewer makes of the page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings)
    return {heading.strip().lower().replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> list[str]:
    """Return each relative link of `page` whose file or anchor does not exist."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for path, anchor in _LINK.findall(text):
        target = (page.parent / path).resolve() if path else page
        is_line = re.fullmatch(r"L\d+", anchor)
        if not target.exists() or (anchor and not is_line and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_resolve(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_shown_code_is_current(page: Path) -> None:
    """`python -m harness.dev.doc_snippets` updates the page."""
    text = page.read_text(encoding="utf-8")
    assert doc_snippets.update(text) == text


def test_paths_and_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        missing += [f"{page.name}: make {name}" for name in _TARGET.findall(text) if name not in targets]
        paths = (path.rstrip("/.") for path in _PATH.findall(text) if not path.startswith(CREATED_LATER))
        missing += [f"{page.name}: {path}" for path in paths if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_run_or_state_why_not(page: Path) -> None:
    """The line before a block of commands is `<!-- run: … -->`, which a test runs, or `<!-- not run: reason -->`."""
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks = [number for number, line in enumerate(lines) if line in ("```console", "```sh", "```bash")]
    assert [lines[number - 1] for number in blocks if not _COMMAND_MARK.fullmatch(lines[number - 1])] == []


@pytest.mark.negative_control
def test_broken_links_and_stale_code_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](#one-heading) [b](#none) [c](none.md) [d](page.md#one-heading)\n")
    assert broken_links(page) == ["#none", "none.md#"]
    stale = "<!-- snippet: harness/errors.py#StackError -->\n```python\nclass Old: ...\n```\n"
    assert "class StackError" in doc_snippets.update(stale)
    with pytest.raises(LookupError, match="does not define Missing"):
        doc_snippets.update(stale.replace("#StackError", "#Missing"))
