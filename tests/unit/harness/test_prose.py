"""The prose check fails on the sentences that it was made for, and passes on their plain rewrites."""

from __future__ import annotations

import fnmatch

import pytest

from harness.dev import prose
from harness.dev.git import run_git
from harness.dev.prose_rules import check_name, check_subject, check_test_name, check_text

pytestmark = pytest.mark.unit

BEFORE_AND_AFTER = [
    (
        "length opening",
        "Who asks for a seat before the same orchestrator's question for it has gone out waits for that answer, a"
        " quarter of a second at most, and where somebody has the seat, loses with it: nothing is written or locked.",
        "Concurrent reserves of one seat in one process share one `ReserveSeat` call.",
    ),
    (
        "opening idiom",
        "what of each service the unit tests come to, for the report",
        "measure unit-test coverage per service",
    ),
    (
        "opening idiom",
        "What a request is told whose saga a person has ended: there is no answer of ours to give again.",
        "Error code for a request whose saga an operator resolved by hand. There is no stored answer to replay.",
    ),
    (
        "opening idiom",
        "Who is told that somebody else is at it has locked nothing: neither who is at it nor the next asker waits.",
        "A request that gets REQUEST_IN_PROGRESS takes no lock, so it delays neither the running request nor a retry.",
    ),
    (
        "semicolon idiom",
        "Only refusals are shared; a seat is had by nobody but who asked for it.",
        "Only refusals are shared, never a successful hold.",
    ),
    (
        "opening idiom",
        "Whoever has the seat himself asks himself: the answer to him names his order.",
        "The current holder always makes its own call, because the refusal it gets contains its order id.",
    ),
    (
        "idiom",
        "An order that may exist already is no business of a crowd's.",
        "A retry whose order may already exist bypasses request coalescing.",
    ),
    ("opening idiom", "Where a rule is had by something simpler", "Rules that a simpler mechanism replaced"),
    (
        "idiom",
        "A number that is none stops every run, a claim without a test every run over all of them.",
        "An unknown claim id aborts every run. A claim without a test aborts full runs.",
    ),
    (
        "idiom",
        "because they hardly depend on who else uses the machine: from run to run they differ by two in a hundred",
        "We count instructions because they vary by only 2 % between runs.",
    ),
    (
        "idiom semicolon",
        "It cannot be told whether this login still stands; try again shortly.",
        "Could not check whether this session was revoked. Try again shortly.",
    ),
    ("opening", "What you have is still so.", "Not modified."),
]


@pytest.mark.parametrize(("rules", "before", "after"), BEFORE_AND_AFTER, ids=[b[:30] for _, b, _ in BEFORE_AND_AFTER])
def test_text_is_judged(rules: str, before: str, after: str) -> None:
    assert set(rules.split()) <= {hit.rule for hit in check_text(before)}
    assert list(check_text(after)) == []


@pytest.mark.parametrize(
    "text", ["What now?", "It ends in `a; b`.", "Keys: a, b; c, d; e.", "See [it](http://x.y/who;z)."]
)
def test_questions_code_and_lists_pass(text: str) -> None:
    assert list(check_text(text)) == []


@pytest.mark.parametrize(("name", "is_bad"), [("_settled", True), ("told", True), ("not_taken", True), ("seed", False)])
def test_function_name_is_judged(name: str, is_bad: bool) -> None:
    assert bool(list(check_name(name))) == is_bad
    assert list(check_name("mark_failed")) == []


def test_long_test_name_is_found() -> None:
    assert [list(check_test_name("test_" + "a" * n)) != [] for n in (60, 61)] == [False, True]


@pytest.mark.parametrize(
    "subject",
    [
        "Add a check",
        "harness: adds a check",
        "harness: added a check",
        "harness: add a check.",
        "harness: " + "x" * 64,
    ],
)
def test_bad_commit_subject_is_found(subject: str) -> None:
    assert list(check_subject(subject)) != []
    assert list(check_subject("harness: add a check")) == []


PYTHON = '''"""Says it."""
# First line
# asks for it.
def settled() -> bool: ...
@property
def told(self): ...
def judged(): raise Refused(CODE, f"{x} hears it")
x = "asks"
'''


@pytest.mark.parametrize(
    ("path", "source", "lines"),
    [
        ("a.py", PYTHON, [1, 3, 7, 7]),
        ("a.md", "Fine.\n```\nit asks\n```\n| a | it asks |\n|---|---|\n- one\n- two\n  it asks\n", [5, 9]),
        ("a.yaml", "# it asks\npath: it asks\nsummary: it asks\ndescription: |-\n  One.\n\n  It asks.\n", [1, 3, 7]),
        ("a.toml", 'x = 1 # it asks\nguard = "the guard asks"\n', [1, 2]),
        ("a.sql", "SELECT 1; -- it asks\n", [1]),
        ("a.html", "<p>Fine <b>it</b></p>\n<p>it asks</p><style>a{asks}</style>", [2]),
        ("Makefile", "up: venv ## it asks\n", [1]),
    ],
)
def test_prose_is_found_in_each_file_type(path: str, source: str, lines: list[int]) -> None:
    assert sorted(finding.line for finding in prose.check_source(path, source)) == lines


def test_exceptions_need_a_reason_and_a_finding() -> None:
    found = [prose.Finding("a.md", 1, "idiom", "it «asks» him", "")]
    exception = {"file": "*.md", "rule": "idiom", "text": "asks", "reason": "quoted"}
    assert prose.apply_exceptions(found, [exception], is_whole_tree=True) == []
    assert [f.advice for f in prose.apply_exceptions([], [exception], is_whole_tree=True)] == [
        "covers nothing: delete it"
    ]
    assert prose.apply_exceptions([], [exception], is_whole_tree=False) == []
    assert [f.advice for f in prose.apply_exceptions(found, [{**exception, "reason": ""}], True)] == ["add a reason"]


@pytest.mark.parametrize("answers", [{}, {"log": "abc\n", "rev-parse": "true\n"}])
def test_missing_history_is_one_line_and_no_error(
    answers: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prose, "run_git", lambda command, *_: answers.get(command))
    assert list(prose.check_commits()) == []
    assert capsys.readouterr().out.count("\n") == 1


def test_commits_since_the_last_tag_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"describe": "v0.1.0\n", "log": "abc harness: add a check\ndef Added things\n", "rev-parse": "false\n"}
    monkeypatch.setattr(prose, "run_git", lambda command, *_: answers[command])
    assert [finding.path for finding in prose.check_commits()] == ["commit def"]


def test_every_skipped_pattern_is_in_use() -> None:
    files = (run_git("ls-files") or "").splitlines()
    assert [pattern for pattern in prose.SKIPPED if files and not fnmatch.filter(files, pattern)] == []
