"""`make demo`: the real system from nothing, every scenario of the reference through its gateway, then the invariants.

    python -m harness.demo [SCENE ...]     all scenes by default

Exit status 0 only if every step went as it should and every invariant holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import invariants, runtime
from harness.api_client import RECENT_REQUESTS
from harness.demo import scenes
from harness.demo.narrator import Narrator
from harness.errors import StackError
from harness.runtime import compose
from harness.runtime.cleanup import end_leftovers, take_down
from harness.runtime.run_directory import RunDir

RUN_DIR = Path(".run") / "demo"  # separate, so that a stack that is already up keeps its data
QUIET_SECONDS = 20.0
SCENES: dict[str, Callable[[Narrator], None]] = {
    scene.__name__: scene
    for scene in (
        scenes.purchase,
        scenes.top_up,
        scenes.flagged_purchase,
        scenes.abandonment,
        scenes.broker_outage,
        scenes.crash,
        scenes.transfer_and_gate,
        scenes.dispute,
    )
}


def main(arguments: Sequence[str]) -> int:
    """Play the named scenes, or all; the exit status."""
    unknown = set(arguments) - SCENES.keys()
    if unknown:
        print(f"no scene {', '.join(sorted(unknown))}; there are: {', '.join(SCENES)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        is_as_expected = _run_on_fresh_stack([SCENES[name] for name in arguments or SCENES])
    except StackError as error:
        print(f"the system did not come up: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    if posts := [known for known, asked in RECENT_REQUESTS if asked.startswith("POST") and asked.endswith("200")]:
        print(f"\nThe way of the last request through all services: make trace ID={posts[-1][:8]}")
    print(
        f"\nAll as it should be, in {seconds:.0f} s."
        if is_as_expected
        else f"\nNOT as it should be; logs are in {RUN_DIR}/logs"
    )
    return 0 if is_as_expected else 1


def _run_on_fresh_stack(chosen: list[Callable[[Narrator], None]]) -> bool:
    """From empty databases each time; what the run leaves stays there to be looked at, until the next."""
    directory = RunDir(compose.ROOT / RUN_DIR)
    end_leftovers(directory)
    take_down(directory, volumes=True)
    with runtime.up(run_dir=directory.path) as stack:
        return _play(Narrator(stack), chosen)


def _play(narrator: Narrator, chosen: list[Callable[[Narrator], None]]) -> bool:
    print(f"\nThe system is up; its gateway is {narrator.gateway}, the codes it sends are at {narrator.inbox.url}")
    try:
        for scene in chosen:
            scene(narrator)
        return _check_invariants(narrator)
    except AssertionError as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return False


def _check_invariants(narrator: Narrator) -> bool:
    narrator.scene("Invariants across all five databases")
    narrator.wait_until(
        "the system is at rest", lambda: not invariants.find_violations(narrator.connect), QUIET_SECONDS
    )
    for check in (*invariants.AT_ANY_TIME, *invariants.AT_QUIESCENCE):
        narrator.say(f"   holds  {check.__name__.partition('_')[0].upper():<4} {(check.__doc__ or '').splitlines()[0]}")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
