"""`python -m harness.dev.doc_snippets`: copies the code that the docs show from the files that contain it.

A block of code follows a line such as `<!-- snippet: services/orchestrator/saga/flows.py#PAY -->`. The command
replaces the block with the source of that function, class or constant. A unit test fails if a page is out of date.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from harness.command_line import run_main
from harness.runtime.compose import ROOT

_BLOCK = re.compile(r"(<!-- snippet: (?P<file>[^#]+)#(?P<name>\w+) -->\n```python\n)(?P<code>.*?)(```)", re.DOTALL)


def pages() -> list[Path]:
    """Return every Markdown page of the project. Hidden folders and installed packages do not belong to it."""
    folders = (folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    nested = (page for folder in folders for page in folder.rglob("*.md") if "node_modules" not in page.parts)
    return sorted([*ROOT.glob("*.md"), *nested])


def update(text: str) -> str:
    """Return `text` with every snippet replaced by the present source. Raises LookupError for a missing name."""
    return _BLOCK.sub(lambda match: f"{match[1]}{source_of(ROOT / match['file'], match['name'])}```", text)


def source_of(file: Path, name: str) -> str:
    """Return the source of one top-level function, class or constant of `file`, without decorators."""
    text = file.read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if name in _names(node):
            return "".join(text.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])
    raise LookupError(f"{file} does not define {name}. Correct the snippet line of the page")


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def main() -> None:
    """Rewrite each page whose snippets have changed."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (updated := update(text)) != text:
            page.write_text(updated, encoding="utf-8")
            print(f"updated {page.relative_to(ROOT)}")


if __name__ == "__main__":
    run_main(main)
