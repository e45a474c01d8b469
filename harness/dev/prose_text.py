"""The prose of a file: documents, docstrings, comments, string literals and descriptions, each with its line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import yaml


class Passage(NamedTuple):
    """A piece of text and its first line. `kind` is text, function or test."""

    line: int
    text: str
    kind: str = "text"


_BULLET = re.compile(
    r"\s*(?:[-+•·]|\*(?!\*)|\d+[.)]|#+|[├└│][├└│─]*)\s+(?=\S)|.*?\S {3,}(?=\S)"
)  # or the term of an aligned list
_NO_PROSE = re.compile(r"\s*(?:>>>.*|[─═\-=_*\s|:]*)$")
_IN_CODE = re.compile(r"`[^`]*`")
_DIRECTIVE = re.compile(r"\s*(?:noqa|type:|pragma|mypy:|ruff:|fmt:|!/|syntax=)")
# A comment is what follows its mark, unless the mark is in quotes.
_HASH = re.compile(r"((?:[^\"'#]|\"[^\"]*\"|'[^']*'|(?<=\S)#|(?<=\w)')*?)(?<!\S)#+\s?(.*)")
_COMMENT = {
    ".sql": re.compile(r"((?:[^'-]|'[^']*'|-(?!-))*?)--\s?(.*)"),
    ".proto": re.compile(r"([^\"/]*?)//\s?(.*)"),
}
_KEYS = ("description", "summary", "title", "message")
_TOML = re.compile(r"^(?!old\b|new\b|pattern\b)[\w.\"-]+ *= *\"((?:[^\"\\]|\\.){8,})\"|^\[+\"([^\"]+)\"", re.M)
_LITERAL = re.compile(r"(?!\W*[A-Z]{4,} )(?!.*(?:%[s(]|import |\w\(['\"]))[^\\<>{}=|$^*\n]* [^\\<>{}=|$^*\n]*")
_HIDDEN = re.compile(r"<(style|script|pre)\b.*?</\1>|<!--.*?-->|\{[%#].*?[%#]\}", re.S)
_HTML_CODE = re.compile(r"<code>.*?</code>|\{\{.*?\}\}", re.S)
_INLINE = re.compile(r"</?(?:a|b|i|em|strong|small|span|abbr)\b[^<>]*>")


def passages(path: str, source: str) -> Iterator[Passage]:
    """Everything in this file that a reader reads as prose, by the type of the file."""
    suffix = PurePath(path).suffix
    if suffix == ".md":
        yield from _paragraphs(1, source)
    elif suffix == ".html":
        yield from _html(source)
    elif suffix == ".py":
        yield from _python(source)
    else:
        pattern = _COMMENT.get(suffix, _HASH)
        found = ((n, pattern.match(row)) for n, row in enumerate(source.split("\n"), 1))
        yield from _comments((n, not m[1].strip(), m[2]) for n, m in found if m)
    if suffix in (".yaml", ".yml") and "{{ " not in source:  # a template is not YAML yet
        yield from _yaml(source)
    if suffix == ".toml":
        for m in _TOML.finditer(source):
            yield Passage(source.count("\n", 0, m.start()) + 1, m[1] or m[2])


def _paragraphs(first: int, text: str) -> Iterator[Passage]:
    """Split at empty lines, bullets, headings and table cells. Leave out fenced code."""
    block: list[str] = []
    start, in_code = first, False
    for number, row in enumerate([*text.split("\n"), ""], first):
        is_fence = row.lstrip().startswith(("```", "~~~"))
        in_code ^= is_fence
        is_prose = not (in_code or is_fence or _NO_PROSE.match(row))
        is_table, item = row.lstrip().startswith("|"), _BULLET.match(row)
        if block and (is_table or item or not is_prose):
            yield Passage(start, "\n".join(block))
            block = []
        if is_prose and is_table:
            cells = _IN_CODE.sub(lambda m: m[0].replace("|", "x"), row).replace("\\|", "x").split("|")
            yield from (Passage(number, cell.strip()) for cell in cells)
        elif is_prose:
            start = start if block else number
            block.append(row[item.end() :] if item else row)
            if item and "#" in item[0]:
                yield Passage(start, block.pop())


def _comments(comments: Iterable[tuple[int, bool, str]]) -> Iterator[Passage]:
    """Comments (line, whether alone on it, text) as paragraphs. Those on consecutive lines belong together."""
    block: list[str] = []
    start, end = 0, -1
    for line, is_alone, comment in comments:
        if not (is_alone and line == end + 1):
            yield from _paragraphs(start, "\n".join(block))
            start, block = line, []
        block.append("" if _DIRECTIVE.match(comment) else comment.replace("─", ""))
        end = line if is_alone else -1
    yield from _paragraphs(start, "\n".join(block))


def _html(source: str) -> Iterator[Passage]:
    text = _HIDDEN.sub(lambda m: " " + "\n" * m[0].count("\n"), source)
    text = _HTML_CODE.sub(lambda m: "x" + "\n" * m[0].count("\n"), text)
    line = 1
    for piece in re.split(r"(<[^<>]*>)", _INLINE.sub("", text)):
        if piece.strip() and not piece.startswith("<"):
            yield Passage(line + piece.count("\n", 0, len(piece) - len(piece.lstrip())), piece.strip())
        line += piece.count("\n")


def _yaml(source: str) -> Iterator[Passage]:
    nodes = list(yaml.compose_all(source, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            nodes.append(value)
            if key.value in _KEYS and isinstance(value, yaml.ScalarNode):
                yield from _paragraphs(value.start_mark.line + (2 if value.style in ("|", ">") else 1), value.value)


def _python(source: str) -> Iterator[Passage]:
    seen: set[int] = set()  # ids of nodes that are done: docstrings and parts of f-strings
    for node in ast.walk(ast.parse(source)):
        text = ""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            seen.add(id(node.value))
            yield from _paragraphs(node.lineno, node.value.value)
        elif isinstance(node, ast.JoinedStr):
            seen.update(map(id, node.values))
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in seen:
            text = node.value
        if _LITERAL.fullmatch(text.strip()):
            yield Passage(getattr(node, "lineno", 0), text)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = ((t.start, t.line, t.string) for t in tokens if t.type == tokenize.COMMENT)
    yield from _comments((at[0], not row[: at[1]].strip(), text.lstrip("#:")) for at, row, text in found)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Passage]:
    """The name, unless a noun or adjective is right for it: a property, fixture, context manager or boolean."""
    marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
    is_bool = node.returns is not None and ast.unparse(node.returns) == "bool"
    if node.name.startswith("test_"):
        yield Passage(node.lineno, node.name, "test")
    elif not is_bool and not re.search(r"property|fixture|contextmanager|\.setter", marks):
        yield Passage(node.lineno, node.name, "function")
