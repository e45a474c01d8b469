"""The prose of a file: paragraphs of documents, docstrings, comments, messages and descriptions, each with its line."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import NamedTuple

import yaml


class Passage(NamedTuple):
    """A piece of text and its first line. `kind` is text, function or test."""

    line: int
    text: str
    kind: str = "text"


_FENCE = re.compile(r"\s*(?:```|~~~)")
_BULLET = re.compile(r"\s*(?:[-*+•·]|\d+[.)])\s+(?=\S)")
_HEADING = re.compile(r"\s*#+\s+")
_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"[─═\-=_*\s|:]*$")
_CODE = re.compile(r"`[^`]*`")
_DIRECTIVE = re.compile(r"\s*(?:noqa|type:|pragma|mypy:|ruff:|fmt:|!/|-\*-|syntax=|yaml-language-server)")
_HASH = re.compile(r"^((?:[^\"'#]|\"[^\"]*\"|'[^']*'|(?<=\S)#)*?)(?<!\S)#+\s?(.*)")
_SQL = re.compile(r"^((?:[^'\-]|'[^']*'|-(?!-))*?)--\s?(.*)")
_PROTO = re.compile(r"^([^\"/]*?)//\s?(.*)")
_TOML = re.compile(r"^(?!old\b|new\b|pattern\b)[\w.\"-]+ *= *\"((?:[^\"\\]|\\.){8,})\"|^\[+\"([^\"]+)\"", re.M)
_KEYS = ("description", "summary", "title", "message")
_CALLS = frozenset(
    (
        "Refused",
        "Unknown",
        "StackError",
        "print",
        "exit",
        "error",
        "fail",
        "ArgumentParser",
        "add_argument",
        "add_parser",
    )
)
_HIDDEN = re.compile(r"<(style|script|pre)\b.*?</\1>|<!--.*?-->|\{%.*?%\}|\{#.*?#\}", re.S)
_INLINE = re.compile(r"</?(?:a|b|i|em|strong|small|span|abbr)\b[^<>]*>")
_HTML_CODE = re.compile(r"<code>.*?</code>|\{\{.*?\}\}", re.S)


def passages(path: str, source: str) -> Iterator[Passage]:
    """Everything in this file that a reader reads as prose, by its type."""
    name = PurePath(path)
    if name.suffix == ".py":
        yield from _python(source)
    elif name.suffix == ".md":
        yield from paragraphs(1, source)
    elif name.suffix == ".html":
        yield from _html(source)
    elif name.suffix in (".sql", ".proto"):
        yield from _comments(source, _SQL if name.suffix == ".sql" else _PROTO)
    else:
        yield from _comments(source, _HASH)
    if name.suffix in (".yaml", ".yml") and "{{ " not in source:
        yield from _yaml(source)
    if name.suffix == ".toml":
        for m in _TOML.finditer(source):
            yield Passage(source.count("\n", 0, m.start()) + 1, m[1] or m[2])


def paragraphs(first: int, text: str) -> Iterator[Passage]:
    """Split at empty lines, bullets, headings and table cells. Leave out fenced code."""
    block: list[str] = []
    start, in_code = first, False
    for number, row in enumerate(text.split("\n"), first):
        is_fence = bool(_FENCE.match(row))
        in_code ^= is_fence
        opens = _BULLET.match(row) or _HEADING.match(row)
        is_row = row.lstrip().startswith("|")
        is_prose = not (in_code or is_fence or _RULE.match(row) or row.lstrip().startswith(">>>"))
        if block and (opens or is_row or not is_prose):
            yield Passage(start, "\n".join(block))
            block = []
        if is_prose and is_row:
            visible = _CODE.sub(lambda m: m[0].replace("|", "x"), row)
            for cell in _PIPE.split(visible):
                yield Passage(number, cell.strip())
        elif is_prose:
            start = start if block else number
            block.append(row[opens.end() :] if opens else row)
            if opens and _HEADING.match(row):
                yield Passage(start, block.pop())
    if block:
        yield Passage(start, "\n".join(block))


def _join_comments(comments: list[tuple[int, bool, str]]) -> Iterator[Passage]:
    """Comments (line, alone on its line, text) as paragraphs, consecutive lines joined."""
    block: list[str] = []
    start, end = 0, -1
    for line, is_alone, comment in comments:
        text = "" if _DIRECTIVE.match(comment) else comment.replace("─", "")
        if not (is_alone and line == end + 1):
            yield from paragraphs(start, "\n".join(block))
            start, block = line, []
        block.append(text)
        end = line if is_alone else -1
    yield from paragraphs(start, "\n".join(block))


def _comments(source: str, pattern: re.Pattern[str]) -> Iterator[Passage]:
    found = ((n, pattern.match(row)) for n, row in enumerate(source.split("\n"), 1))
    yield from _join_comments([(n, not m[1].strip(), m[2]) for n, m in found if m])


def _html(source: str) -> Iterator[Passage]:
    keep_lines: Callable[[re.Match[str]], str] = lambda m: re.sub(r"\S", " ", m[0])  # noqa: E731
    text = _HIDDEN.sub(keep_lines, source)
    text = _HTML_CODE.sub(lambda m: "x" + "\n" * m[0].count("\n"), text)
    text = _INLINE.sub("", text)
    line = 1
    for piece in re.split(r"(<[^<>]*>)", text):
        if not piece.startswith("<") and piece.strip():
            blank = len(piece) - len(piece.lstrip())
            yield Passage(line + piece.count("\n", 0, blank), piece.strip())
        line += piece.count("\n")


def _yaml(source: str) -> Iterator[Passage]:
    nodes = list(yaml.compose_all(source, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        for key, value in node.value:
            nodes.append(value)
            if key.value in _KEYS and isinstance(value, yaml.ScalarNode):
                yield from paragraphs(value.start_mark.line + (2 if value.style in ("|", ">") else 1), value.value)


def _python(source: str) -> Iterator[Passage]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from paragraphs(node.lineno, node.value.value)
        elif isinstance(node, ast.Raise | ast.Call):
            yield from _messages(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function(node)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = ((t.start, t.line, t.string) for t in tokens if t.type == tokenize.COMMENT)
    yield from _join_comments([(at[0], not row[: at[1]].strip(), text.lstrip("#:")) for at, row, text in found])


def _messages(node: ast.Raise | ast.Call) -> Iterator[Passage]:
    call = node.exc if isinstance(node, ast.Raise) else node
    if not isinstance(call, ast.Call):
        return
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if isinstance(node, ast.Raise) != (name in _CALLS):  # a raise of one of these is met again as its call
        for argument in [*call.args, *(k.value for k in call.keywords)]:
            yield from _strings(argument)


def _strings(node: ast.AST) -> Iterator[Passage]:
    if isinstance(node, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else "x" for p in node.values)
        yield from paragraphs(node.lineno, "".join(map(str, parts)))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from paragraphs(node.lineno, node.value)
    elif isinstance(node, ast.BinOp | ast.IfExp | ast.BoolOp):
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Passage]:
    marks = " ".join(ast.unparse(d) for d in node.decorator_list)
    if node.name.startswith("test_"):
        yield Passage(node.lineno, node.name, "test")
    elif not re.search(r"property|fixture|contextmanager|\.setter", marks):
        is_bool = node.returns is not None and ast.unparse(node.returns) == "bool"
        if not is_bool:
            yield Passage(node.lineno, node.name, "function")
