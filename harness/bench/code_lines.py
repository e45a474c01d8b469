"""Counts lines of code: lines of Python with more than a comment or a docstring, generated code excluded."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

GENERATED = "pb"  # the folder of the generated gRPC code
_BLANK = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count_code_lines(folder: Path) -> int:
    """Return the lines of code of all Python files in a folder."""
    return sum(count_lines(path.read_text()) for path in folder.rglob("*.py") if GENERATED not in path.parts)


def count_lines(source: str) -> int:
    """Return the lines of code of one file."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _BLANK:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - _find_docstrings(source))


def _find_docstrings(source: str) -> set[int]:
    """Return the lines of all texts that are statements of their own."""
    texts = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr))
    found = [text for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
    return {line for text in found for line in range(text.lineno, (text.end_lineno or text.lineno) + 1)}
