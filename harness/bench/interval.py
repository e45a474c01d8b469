"""The bootstrap interval of a median: how far the figure could be off by the noise between rounds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

RESAMPLES, COVERED, SEED = 2000, 0.95, 19


def bootstrap_interval(rounds: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median over the rounds.

    Each resample draws as many rounds as there are, with replacement. The same rounds always give the same interval.
    Raises ValueError without rounds.
    """
    if not rounds:
        raise ValueError("no rounds")
    draw = random.Random(SEED)  # noqa: S311 - no secret depends on it
    medians = sorted(median(draw.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
    tail = round((1 - COVERED) / 2 * RESAMPLES)
    return medians[tail], medians[-tail - 1]
