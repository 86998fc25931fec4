"""Timing several ways of doing one thing on a machine that is not quiet."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from orthoreg_jax.progress import Progress


def medians(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each way, the median over rounds.

    All ways take their turn in every round, so that a slow moment of the machine meets all of them
    alike. The first round, which compiles and warms caches up, does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with Progress("time", (rounds + 1) * len(ways)) as progress:
        for _ in range(rounds + 1):
            for name, way in ways.items():
                began = time.perf_counter()
                jax.block_until_ready(way())
                seconds[name].append(time.perf_counter() - began)
                progress.update()
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}
