"""`make chaos`: a soak of any length. After a failure, it searches the shortest list of acts that still fails.

python -m tests.chaos [--seconds 60] [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.command_line import run_main
from harness.errors import StackError
from harness.report import page
from harness.runtime.signals import interrupt_once
from tests.chaos import nemesis
from tests.chaos.nemesis import Act
from tests.chaos.soak import QUIET_SECONDS, Result, soak, summarize, write_report
from tests.chaos.stack import running_stack
from tests.support.running_stack import CHOICE

SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Run a soak and write the report. Returns 1 if the judge found anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"length of the load (default: {SECONDS:g})")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="default: a random one")
    options = parser.parse_args(arguments)
    print(f"chaos: {options.seconds:g} s, SEED={options.seed}", flush=True)
    for kind, reason in nemesis.NOT_RUN.items():
        print(f"not run: {kind} ({reason})", flush=True)
    if CHOICE.kind != "native":
        raise StackError(f"the acts send signals to native processes, and STACK={CHOICE.kind} starts others.")
    interrupt_once()
    result = _run(options.seed, options.seconds, None)
    write_report(result)
    page.write()
    _print_summary(result)
    if result.has_failed and result.acts and "CI" not in os.environ:  # each repetition takes as long as the run
        _print_prefix(result)
    return int(result.has_failed)


def run() -> int:
    """Run the command with the arguments of the process. An error of the stack and Ctrl-C print no traceback."""
    try:
        return main(sys.argv[1:])
    except StackError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(seed: int, seconds: float, acts: Sequence[Act] | None) -> Result:
    with tempfile.TemporaryDirectory(prefix="ticketremaster-chaos-") as folder, running_stack(Path(folder)) as stack:
        return soak(stack, seed, seconds, acts)


def _print_summary(result: Result) -> None:
    figures = summarize(result)
    for act in figures["acts"]:
        print(
            "{at:7.1f} s  {act}: healthy after {restored_after} s, sagas {saga_seconds} s, keys {key_seconds} s".format(
                **act
            )
        )
    print(f"acts by kind: {figures['counts']}")
    print(
        f"{figures['requests']} requests, {figures['statuses']}, p99 {figures['p99_ms']} ms, facts {figures['facts']}"
    )
    print(result.explain() if result.has_failed else "the judge found nothing")


def _print_prefix(result: Result) -> None:
    """Search the shortest prefix of the acts that still fails, by bisection. It can be empty."""
    print("search of the shortest list of acts that still fails (Ctrl-C ends it)", flush=True)
    passes, fails = -1, len(result.acts)
    while fails - passes > 1:
        middle = (passes + fails) // 2
        acts = result.acts[:middle]
        seconds = 2 * QUIET_SECONDS + sum(act.rest + act.longest + nemesis.RESTORE_SECONDS for act in acts)
        if _run(result.seed, seconds, acts).has_failed:
            fails = middle
        else:
            passes = middle
        print(f"the first {middle} acts {'fail' if fails == middle else 'pass'}", flush=True)
    last = f", the last is {result.acts[fails - 1]}" if fails else ""
    print(f"shortest failing prefix: {fails} acts{last}")


if __name__ == "__main__":
    run_main(run)
