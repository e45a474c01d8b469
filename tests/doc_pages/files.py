"""The list of generated files."""

from __future__ import annotations

from tests.claims import compensation_matrix
from tests.doc_pages import pictures, scaling_page, settings_page, spec_page


def generate() -> dict[str, str]:
    """Return the text of every generated file by its path."""
    return {
        "docs/compensation-matrix.md": compensation_matrix.generate(),
        "docs/scaling-figures.md": scaling_page.render(),
        "docs/settings.md": settings_page.render(),
        "docs/spec/README.md": spec_page.render(),
        **{f"docs/img/{name}.svg": picture for name, picture in pictures.draw_all().items()},
    }
