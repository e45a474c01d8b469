"""The explorer executes no schedule twice and loses none, and `make interleavings` resumes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from itertools import permutations
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.interleavings import build_pairs
from tests.saga.interleavings import __main__ as command
from tests.saga.interleavings.explorer import Exploration, Run, format_prefix, parse_prefix
from tests.saga.interleavings.exploring import Executed, Search, SearchReport
from tests.saga.interleavings.scheduler import Step

pytestmark = pytest.mark.saga

Program = list[tuple[str, bool]]  # (variable, whether it is written), a step each
ACCESS = st.tuples(st.sampled_from("xy"), st.booleans())
PROGRAMS = st.one_of(
    *(
        st.lists(st.lists(ACCESS, min_size=1, max_size=size), min_size=actors, max_size=actors)
        for actors, size in ((2, 4), (3, 2))
    )
)


def execute(programs: dict[str, Program], prefix: Sequence[str]) -> Run:
    """Run small programs under a schedule. A write depends on all that its program has read."""
    memory, logs = dict.fromkeys("xy", ""), dict.fromkeys(programs, "")
    steps: list[Step] = []
    left, current = {name: list(program) for name, program in programs.items()}, ""
    while enabled := [name for name, program in left.items() if program]:
        chosen = current if current in enabled else enabled[0]
        if len(steps) < len(prefix):
            chosen = prefix[len(steps)]
        variable, writes = left[chosen].pop(0)
        if writes:
            memory[variable] = f"({logs[chosen]}{chosen}{len(left[chosen])})"
        else:
            logs[chosen] += memory[variable]
        others = tuple(name for name in enabled if name != chosen)
        steps.append(Step(chosen, "", frozenset({(variable, "", writes)}), True, others, current not in enabled))
        current = chosen
    return Run(tuple(prefix), tuple(steps), f"{memory} {logs}", "")


@settings(deadline=None, max_examples=60)
@given(PROGRAMS, st.sampled_from([1, 2, inf]))
def test_reduction_loses_no_outcome(chosen: list[Program], bound: float) -> None:
    """Compare with every order of the steps that has so many preemptions."""
    programs = dict(zip("abc", chosen, strict=False))
    turns = [name for name, program in programs.items() for _ in program]
    every = [execute(programs, order) for order in set(permutations(turns))]
    runs = Exploration(lambda prefix: execute(programs, prefix), tuple(programs), bound).explore()
    assert {run.outcome for run in runs} >= {run.outcome for run in every if run.preemptions <= bound}
    assert {run.outcome for run in runs} <= {run.outcome for run in every}


def test_schedule_text_is_read_back() -> None:
    assert parse_prefix(format_prefix(tuple("aabba"))) == tuple("aabba")


class FakeExplorer:
    """Replaces the workers: reports one schedule for each search, and is interrupted after `most`."""

    def __init__(self, most: int = 99) -> None:
        self.most = most
        self.begun: list[Search] = []

    def __call__(self, searches: Sequence[Search], deadline: float) -> Iterator[SearchReport]:
        for search in searches:
            if len(self.begun) == self.most:
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                return
            self.begun.append(search)
            executed = Executed(f"{search.pair}: a b", "200 | 200 ⇒ seat: SOLD", "seat: SOLD", "", is_serial=True)
            yield SearchReport(search, (executed,), (), is_complete=True, seconds=1.0)


def test_interrupted_run_resumes_and_keeps_its_results(tmp_path: Path) -> None:
    report, searches = tmp_path / "interleavings.json", command.list_searches("pay~pay", seed=7)
    with pytest.raises(KeyboardInterrupt):
        command.run(searches, report, "r1", inf, FakeExplorer(most=3))
    rest, again = FakeExplorer(), FakeExplorer()
    assert command.run(searches, report, "r1", inf, rest) == 0
    assert rest.begun == searches[3:]
    picture = build_pairs(json.loads(report.read_text()))
    assert picture
    assert (picture["schedules"], picture["distinct_end_states"]) == (len(searches), 1)
    assert [(name, [cell and cell.schedules for cell in cells]) for name, cells in picture["rows"]] == [("pay", [5, 5])]
    command.run(searches, report, "r2", inf, again)
    assert again.begun == searches, "another revision starts again"


def test_time_limit_begins_no_further_search(tmp_path: Path) -> None:
    searches, explorer = command.list_searches("pay~pay", seed=7), FakeExplorer()
    assert command.run(searches, tmp_path / "interleavings.json", "r1", 0, explorer) == len(searches)


def test_seed_decides_the_order_of_the_searches() -> None:
    first, second, other = (command.list_searches("", seed) for seed in (1, 1, 2))
    assert first == second != other
    assert set(first) == set(other)
