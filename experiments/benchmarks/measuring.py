"""What the benchmarks share: timing in turn, and the page that a measurement becomes."""

from __future__ import annotations

import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import write_json, write_text

RESULTS = pathlib.Path(__file__).parents[1] / "results"


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


def write_page(name: str, title: str, data: Any, *parts: str) -> None:
    """Writes experiments/results/NAME.md (title, command, parts) and NAME.json; prints the page."""
    command = f"    python {' '.join(sys.argv)}"
    text = "\n\n".join([f"# {title}", command, *parts]) + "\n"
    write_text(RESULTS / f"{name}.md", text)
    write_json(RESULTS / f"{name}.json", data)
    print(text)
