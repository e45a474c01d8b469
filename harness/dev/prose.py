"""Check prose and names against the writing rules: `python -m harness.dev.prose [--stats] [PATH ...]`.

Each finding is one line, `path:line: rule: text → advice`. The exit status is 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from harness.dev.git import git
from harness.dev.prose_rules import RULES, Hit, check_name, check_subject, check_test_name, check_text
from harness.dev.prose_text import passages
from harness.runtime.compose import ROOT

EXCEPTIONS = Path(__file__).with_name("prose_exceptions.toml")
TYPES = (".md", ".py", ".yaml", ".yml", ".toml", ".html", ".sql", ".sh", ".proto", ".conf", "Makefile", "Dockerfile")
SKIPPED = {
    "services/contracts/pb/*": "generated from proto/",
    "API.md": "generated from specs/, which are checked",
    "specs/vendor/*": "third-party schemas, copied unchanged",
    "deploy/k8s/schemas/*": "third-party schemas, copied unchanged",
    "*prose_rules.py": "contains the banned words as data",
    "*prose_exceptions.toml": "quotes the sentences that it excuses",
    "*test_prose.py": "contains bad sentences as test data",
}
CHECKS = {"text": check_text, "function": check_name, "test": check_test_name}


class Finding(NamedTuple):
    """One broken rule at one place of the tree."""

    path: str
    line: int
    rule: str
    text: str
    advice: str

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 90 else self.text[:89] + "…"
        return f"{self.path}:{self.line}: {self.rule}: {shown} → {self.advice}"


def list_files() -> list[str]:
    """The files that Git tracks or would add. Without Git: every file outside hidden folders."""
    listed = git("ls-files", "-co", "--exclude-standard")
    if listed is None:
        found = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
        listed = "\n".join(str(p) for p in found if not any(part.startswith(".") for part in p.parts))
    return sorted({p for p in listed.splitlines() if is_checked(p)})


def is_checked(path: str) -> bool:
    """Whether the check reads this file."""
    is_skipped = any(fnmatch(path, pattern) for pattern in SKIPPED)
    return path.endswith(TYPES) and not is_skipped and (ROOT / path).is_file()


def check_source(path: str, source: str) -> Iterator[Finding]:
    """Every finding in one file."""
    for passage in passages(path, source):
        for hit in CHECKS[passage.kind](passage.text):
            yield _finding(path, passage.line + passage.text.count("\n", 0, hit.offset), hit)


def check_commits() -> tuple[list[Finding], str]:
    """Findings in the commit subjects since the last tag, or since this check, and a note if they cannot be read."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(Path(__file__).relative_to(ROOT))) or ""
    base = (git("describe", "--tags", "--abbrev=0") or added.rpartition("\n")[0].rpartition("\n")[2]).strip()
    log = git("log", "--no-merges", "--format=%h %s", f"{base}..HEAD") if base else None
    if log is None:
        return [], "prose: commit subjects are not checked, because there is no Git history here"
    commits = (row.partition(" ") for row in log.splitlines())
    return [_finding(f"commit {sha}", 0, hit) for sha, _, subject in commits for hit in check_subject(subject)], ""


def _finding(path: str, line: int, hit: Hit) -> Finding:
    return Finding(path, line, hit.rule, hit.text, hit.advice)


def apply_exceptions(
    findings: Iterable[Finding], exceptions: list[dict[str, Any]], is_whole_tree: bool
) -> list[Finding]:
    """The findings that no exception covers, and one for each exception that has no reason or matches nothing."""
    used: set[int] = set()
    left = []
    for finding in findings:
        covers = [n for n, e in enumerate(exceptions) if _covers(e, finding)]
        used.update(covers)
        if not covers:
            left.append(finding)
    for n, e in enumerate(exceptions):
        if not e.get("reason"):
            left.append(Finding(EXCEPTIONS.name, 0, "exception", str(e.get("text")), "add a reason"))
        elif is_whole_tree and n not in used:
            left.append(Finding(EXCEPTIONS.name, 0, "exception", str(e.get("text")), "matches nothing: delete it"))
    return left


def _covers(exception: dict[str, Any], finding: Finding) -> bool:
    return (
        fnmatch(finding.path, exception["file"])
        and finding.rule == exception["rule"]
        and exception["text"] in finding.text
    )


def print_stats(findings: list[Finding]) -> None:
    """Print a table: findings per top-level folder and rule."""
    counts = Counter((f.path.split("/")[0].split(" ")[0], f.rule) for f in findings)
    rules = [*RULES, "exception"]
    print("".join(f"{name:>11}" for name in ("", *rules, "all")))
    for folder in [*sorted({folder for folder, _ in counts}), "all"]:
        row = [sum(n for (f, r), n in counts.items() if folder in ("all", f) and r == rule) for rule in rules]
        print(f"{folder[:16]:<16}"[:11].ljust(11) + "".join(f"{n:>11}" for n in (*row, sum(row))))


def main(arguments: list[str] | None = None) -> int:
    """Check the given files and folders, or the whole tree and the commit subjects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", help="files or folders (default: the whole tree and the commit subjects)")
    parser.add_argument("--stats", action="store_true", help="print counts per folder and rule")
    chosen = parser.parse_args(arguments)
    wanted = [Path(p).resolve().relative_to(ROOT).as_posix() for p in chosen.paths]
    files = [p for p in list_files() if not wanted or any(w in (".", p) or p.startswith(w + "/") for w in wanted)]
    commits, note = check_commits() if not wanted else ([], "")
    found = [f for path in files for f in check_source(path, (ROOT / path).read_text())] + commits
    exceptions = tomllib.loads(EXCEPTIONS.read_text()).get("exception", [])
    findings = sorted(apply_exceptions(found, exceptions, is_whole_tree=not wanted))
    if note:
        print(note)
    if chosen.stats:
        print_stats(findings)
    else:
        print("\n".join(map(str, findings)) if findings else f"prose: {len(files)} files, no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
