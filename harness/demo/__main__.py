"""`make demo`: start the system with empty databases, run every scenario through the gateway, check the invariants.

    python -m harness.demo [SCENE ...]     all scenes by default

The exit status is 0 only if every step succeeds and every invariant holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from harness import invariants, runtime
from harness.api_client import RECENT_REQUESTS
from harness.command_line import run_main
from harness.demo import scenes
from harness.demo.narrator import Narrator
from harness.errors import StackError
from harness.runtime.run_directory import default_path

NAME = "demo"  # of its folder in the run directory, separate so that a running stack keeps its data
REST_SECONDS = 20.0
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
    """Run the named scenes, or all, and return the exit status."""
    unknown = set(arguments) - SCENES.keys()
    if unknown:
        print(f"no scene {', '.join(sorted(unknown))}. Choose from: {', '.join(SCENES)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        has_succeeded = _run_on_fresh_stack([SCENES[name] for name in arguments or SCENES])
    except StackError as error:
        print(f"the system did not start: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - began
    if posts := [id_ for id_, call in RECENT_REQUESTS if call.startswith("POST") and call.endswith("200")]:
        print(f"\nTo see the last request in the logs of all services: make trace ID={posts[-1][:8]}")
    print(
        f"\nEvery step succeeded and every invariant holds ({seconds:.0f} s)."
        if has_succeeded
        else f"\nThe demo FAILED. The logs are in {default_path() / NAME}/logs."
    )
    return 0 if has_succeeded else 1


def _run_on_fresh_stack(chosen: list[Callable[[Narrator], None]]) -> bool:
    """Start with empty databases and run the scenes. The data stays in the run directory until the next demo."""
    with runtime.up_fresh(NAME, env={}) as stack:
        return _run_scenes(Narrator(stack), chosen)


def _run_scenes(narrator: Narrator, chosen: list[Callable[[Narrator], None]]) -> bool:
    print(f"\nThe system runs. Gateway: {narrator.gateway}. Inbox with the one-time codes: {narrator.inbox.url}")
    try:
        for scene in chosen:
            scene(narrator)
        return _check_invariants(narrator)
    except AssertionError as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return False


def _check_invariants(narrator: Narrator) -> bool:
    narrator.scene("Invariants across the databases")
    narrator.wait_until("the system is at rest", lambda: not invariants.find_violations(narrator.connect), REST_SECONDS)
    for check in (*invariants.AT_ANY_TIME, *invariants.AT_QUIESCENCE, invariants.i7_sagas_end):
        narrator.say(f"   holds  {(check.__doc__ or '').splitlines()[0]}")
    return True


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
