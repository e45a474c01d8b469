"""Check prose, names and commit subjects: `python -m harness.dev.prose [--stats] [PATH ...]`.

It prints one line a finding, `path:line: rule: text → advice`, and exits with status 1 if there is a finding.
"""

from __future__ import annotations

import argparse
import tomllib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from harness.command_line import run_main
from harness.dev.git import run_git
from harness.dev.prose_rules import RULES, check_name, check_subject, check_test_name, check_text
from harness.dev.prose_text import passages
from harness.runtime.compose import ROOT

EXCEPTIONS = Path(__file__).with_name("prose_exceptions.toml")
TYPES = (".md", ".py", ".yaml", ".yml", ".toml", ".html", ".sql", ".sh", ".proto", ".conf", "Makefile", "Dockerfile")
SKIPPED = {
    "services/contracts/pb/*": "generated from proto/",
    "API.md": "generated from specs/, which are checked",
    "deploy/k8s/schemas/*": "third-party schemas, copied unchanged",
    "harness/dev/prose_rules.py": "contains the banned words as data",
    "harness/dev/prose_exceptions.toml": "quotes the sentences that it excuses",
    "tests/unit/harness/test_prose.py": "contains bad sentences as test data",
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


def list_files(wanted: list[str]) -> list[str]:
    """The text files of the tree, or those in the wanted paths. Without Git, hidden folders do not count."""
    listed = run_git("ls-files", "-co", "--exclude-standard")
    paths = (
        listed.splitlines()
        if listed
        else [p.relative_to(ROOT).as_posix() for glob in ("[!.]*", "[!.]*/**/*") for p in ROOT.glob(glob)]
    )
    chosen = (
        p for p in paths if p.endswith(TYPES) and (not wanted or any(f"{p}/".startswith(f"{w}/") for w in wanted))
    )
    return sorted({p for p in chosen if not any(fnmatch(p, pattern) for pattern in SKIPPED) and (ROOT / p).is_file()})


def check_source(path: str, source: str) -> Iterator[Finding]:
    """Every finding in one file."""
    for passage in passages(path, source):
        for hit in CHECKS[passage.kind](passage.text):
            yield Finding(path, passage.line + passage.text.count("\n", 0, hit.offset), *hit[1:])


def check_commits() -> Iterator[Finding]:
    """Every finding in the commit subjects since the last tag, or since `make lint` runs this check."""
    since = ("log", "-1", "--format=%H")
    base = run_git("describe", "--tags", "--abbrev=0") or run_git(*since, "-Sharness.dev.prose", "--", "Makefile")
    base = base or run_git(*since, "--diff-filter=A", "--", "harness/dev/prose.py")
    log = run_git("log", "--no-merges", "--format=%h %s", f"{base.strip()}..HEAD") if base else None
    if log is None or (run_git("rev-parse", "--is-shallow-repository") or "").startswith("true"):
        print("prose: commit subjects are not checked, because the Git history is missing or shallow")
        return
    for sha, _, subject in (row.partition(" ") for row in log.splitlines()):
        yield from (Finding(f"commit {sha}", 0, *hit[1:]) for hit in check_subject(subject))


def apply_exceptions(found: list[Finding], exceptions: list[dict[str, str]], is_whole_tree: bool) -> list[Finding]:
    """The findings that no exception covers, and one for each exception that has no reason or covers nothing."""
    left = [f for f in found if not any(_covers(e, f) for e in exceptions)]
    for e in exceptions:
        if not e.get("reason"):
            left.append(Finding(EXCEPTIONS.name, 0, "exception", e["text"], "add a reason"))
        elif is_whole_tree and not any(_covers(e, f) for f in found):
            left.append(Finding(EXCEPTIONS.name, 0, "exception", e["text"], "covers nothing: delete it"))
    return left


def _covers(exception: dict[str, str], finding: Finding) -> bool:
    is_place = fnmatch(finding.path, exception["file"]) and finding.rule == exception["rule"]
    return is_place and exception["text"] in finding.text


def print_stats(findings: list[Finding]) -> None:
    """Print a table of findings: a row for each top-level folder, a column for each rule."""
    counts = Counter((f.path.split("/")[0].split()[0], f.rule) for f in findings)
    rules = (*RULES, "exception")
    print(" " * 18 + "".join(f"{rule:>11}" for rule in (*rules, "all")))
    for folder in [*sorted({folder for folder, _ in counts}), "all"]:
        row = [sum(n for (f, r), n in counts.items() if folder in ("all", f) and r == rule) for rule in rules]
        print(f"{folder:<18}" + "".join(f"{n:>11}" for n in (*row, sum(row))))


def main(arguments: list[str] | None = None) -> int:
    """Check the given files and folders, or the whole tree and the commit subjects."""
    parser = argparse.ArgumentParser(description="Check prose, names and commit subjects.")
    parser.add_argument("paths", nargs="*", help="files or folders (default: the whole tree and the commit subjects)")
    parser.add_argument("--stats", action="store_true", help="print counts per folder and rule")
    options = parser.parse_args(arguments)
    wanted = [Path(p).resolve().relative_to(ROOT).as_posix() for p in options.paths if Path(p).resolve() != ROOT]
    files = list_files(wanted)
    found = [f for path in files for f in check_source(path, (ROOT / path).read_text())]
    found += [] if wanted else check_commits()
    exceptions = tomllib.loads(EXCEPTIONS.read_text()).get("exception", [])
    findings = sorted(apply_exceptions(found, exceptions, is_whole_tree=not wanted))
    if options.stats:
        print_stats(findings)
    else:
        print("\n".join(map(str, findings)) if findings else f"prose: {len(files)} files, no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    run_main(main)
