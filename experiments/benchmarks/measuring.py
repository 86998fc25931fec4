"""Shared by the benchmarks: interleaved timing, and the page of a measurement."""

from __future__ import annotations

import ctypes
import math
import os
import pathlib
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import write_json, write_text

RESULTS = pathlib.Path(__file__).parents[1] / "results"
_MALLOC_OPTIONS = {"M_TRIM_THRESHOLD": -1, "M_MMAP_MAX": -4, "M_ARENA_MAX": -8}  # malloc.h
SIDE = 2048  # of the square matrices that measure the machine's rates

jax.config.update("jax_enable_compilation_cache", False)  # compile times are those of a first run


def medians(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each way, the median over rounds.

    All ways take turns in every round, so that a slow moment of the machine affects all of them.
    The order changes each time, so that no way always follows the same other one and its side
    effects. The first round, in the given order, compiles and warms up caches, and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order, shuffle = list(ways), random.Random(0).shuffle
    with Progress("time", (rounds + 1) * len(ways)) as progress:
        for _ in range(rounds + 1):
            for name in order:
                began = time.perf_counter()
                jax.block_until_ready(ways[name]())
                seconds[name].append(time.perf_counter() - began)
                progress.update()
            shuffle(order)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def queued_seconds(
    call: Callable[[], Any],
    calls: int = 5,
    rounds: int = 5,
    wait: Callable[[Any], Any] = jax.block_until_ready,
) -> float:
    """Median seconds of one call while several are in flight, as in training.

    An accelerator starts the next call while the host prepares the one after it. Waiting for each
    call would also count the host's part.
    """
    wait(call())
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            result = call()
        wait(result)
        seconds.append((time.perf_counter() - began) / calls)
    return statistics.median(seconds)


class HeldBytes:
    """Watches the memory that JAX holds on the device; `most` is the maximum of samples 2 ms apart.

    The allocator's own peak is that of the whole process and never goes down. None on CPUs, whose
    allocator does not count.
    """

    def __enter__(self) -> HeldBytes:
        """Begins."""
        self.most = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends."""
        self._over.set()
        self._thread.join()

    def _now(self) -> int | None:
        return (jax.devices()[0].memory_stats() or {}).get("bytes_in_use")

    def _watch(self) -> None:
        while self.most is not None and not self._over.wait(0.002):
            self.most = max(self.most, self._now() or 0)


def keep_memory() -> None:
    """Makes the C library keep freed memory for later allocations.

    Every step allocates its temporary arrays again. Back to back, as in training, it reuses the
    pages of the previous step. After other ways' turns, the system has reclaimed them. On a virtual
    machine, this was measured to cost a fifth of a step of ViT-B/32; PyTorch, which keeps more in
    its heap, lost a fiftieth.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only glibc has these options
        for option, value in (("M_TRIM_THRESHOLD", -1), ("M_MMAP_MAX", 0), ("M_ARENA_MAX", 1)):
            mallopt(_MALLOC_OPTIONS[option], value)


def peak_megabytes() -> float:
    """Peak memory of this process so far, as reported by Linux."""
    # Not by getrusage, which starts from the peak of the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def square_product() -> Callable[[], Any]:
    """A product of float32 matrices of SIDE x SIDE, 2 SIDE^3 operations."""
    square = jnp.ones((SIDE, SIDE), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    return lambda: product(square)


def product_operations(jaxpr: Jaxpr) -> int:
    """Floating-point operations of all matrix products in a traced function.

    Scans count once per iteration. A `while` counts as one iteration and a `cond` as none: steps
    have neither.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            sides: Any = (equation.invars[0].aval, equation.outvars[0].aval)
            left, result = (side.shape for side in sides)
            total += 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
        inner = (getattr(value, "jaxpr", value) for value in equation.params.values())
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += repeats * sum(product_operations(one) for one in inner if isinstance(one, Jaxpr))
    return total


def machine(rounds: int = 7) -> dict[str, Any]:
    """The machine, and the rates that bound it: of a matrix product, and of a copy."""
    large = jnp.ones((64, 2**20), jnp.float32)
    copy = jax.jit(lambda a: -a)
    found = medians({"product": square_product(), "copy": lambda: copy(large)}, rounds)
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "gflops": 2 * SIDE**3 / found["product"] / 1e9,
        "copied_gigabytes_per_second": 2 * large.nbytes / found["copy"] / 1e9,
    }


def write_page(name: str, title: str, data: Any, *parts: str) -> None:
    """Writes experiments/results/NAME.md (title, command, machine, parts) and NAME.json."""
    here = machine()
    lines = (
        f"# {title}",
        f"    python {' '.join(sys.argv)}",
        f"{here['devices']} {here['device']}, {here['cores']} processor cores, jax {here['jax']}; "
        f"after the measurement it multiplied float32 matrices of {SIDE} x {SIDE} at "
        f"{here['gflops']:.0f} GFLOP/s, and read and wrote "
        f"{here['copied_gigabytes_per_second']:.1f} GB/s.",
    )
    text = "\n\n".join([*lines, *parts]) + "\n"
    write_text(RESULTS / f"{name}.md", text)
    write_json(RESULTS / f"{name}.json", {"machine": here, "measured": data})
    print(text)
