"""`python -m tests.doc_pages`: writes every generated page and picture, and updates the code that pages show."""

from __future__ import annotations

from harness.command_line import run_main
from harness.dev import doc_snippets
from harness.runtime.compose import ROOT
from tests.doc_pages.files import generate


def main() -> None:
    """Write each file that has changed."""
    doc_snippets.main()
    for name, text in generate().items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"updated {name}")


if __name__ == "__main__":
    run_main(main)
