"""Randomness that can be had again."""

import os
import random


def seeded() -> random.Random:
    """Return randomness whose seed is in the report of a failure; SEED repeats one."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={seed}")  # noqa: T201 (pytest shows it with a failure)
    return random.Random(seed)
