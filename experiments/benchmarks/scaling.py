r"""Measures how time and memory grow: exponents, fitted on a double logarithmic scale.

    python experiments/benchmarks/scaling.py --rounds 5

It measures the penalty against the tower's width and depth; a train step with the penalty against
batch and depth; merging, in memory and from files, against the number of task vectors; and a train
step on 1 to 8 virtual devices that share this machine's processors. Devices share the same global
batch, so the time should be constant, and with split weights (fsdp) the state per device should
fall. Time is the median of interleaved rounds. Memory is that of inputs, outputs and temporaries of
the compiled function, as reported by XLA, on one device; for merging from files, the growth of the
process's peak. Writes experiments/results/scaling.md and .json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from measuring import medians, peak_megabytes, write_page

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors
from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import PRESETS, ClipConfig, TextConfig, VisionConfig
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.merging import task_arithmetic
from orthoreg_jax.merging.files import merge_files
from orthoreg_jax.penalties.orthoreg import orthogonality_penalty
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.sharding import make_shardings
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step
from orthoreg_jax.trees import save_tree

TEXT = TextConfig(
    width=64,
    layers=1,
    heads=1,
    mlp_width=256,
    activation="gelu",
    eps=1e-5,
    vocab_size=64,
    context_length=8,
    bos_token_id=0,
    eos_token_id=1,
)
GLOBAL_BATCH = 64


class Work(NamedTuple):
    """A compiled function and its arguments.

    With `state_first`, each call's first result is the next call's first argument.
    """

    call: Callable[..., Any]
    arguments: list[Any]
    state_first: bool
    megabytes: float

    def run(self) -> Any:
        """Once."""
        result = self.call(*self.arguments)
        if self.state_first:
            self.arguments[0] = result[0]
        return result


def compiled(function: Callable[..., Any], *arguments: Any, state_first: bool = False) -> Work:
    """Compiles a function, and records its memory on one device."""
    call = (function if hasattr(function, "lower") else jax.jit(function)).lower(*arguments)
    ready = call.compile()
    usage = ready.memory_analysis()
    held = usage.argument_size_in_bytes + usage.output_size_in_bytes - usage.alias_size_in_bytes
    return Work(ready, list(arguments), state_first, (held + usage.temp_size_in_bytes) / 2**20)


def tower(width: int, layers: int) -> tuple[ClipConfig, Any]:
    """An image tower of this size and its random weights."""
    visual = VisionConfig(
        width=width,
        layers=layers,
        heads=width // 64,
        mlp_width=4 * width,
        activation="quick_gelu",
        eps=1e-5,
        image_size=64,
        patch_size=8,
    )
    module = VisionTransformer(visual, width)
    params = module.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    return ClipConfig(visual=visual, text=TEXT, projection=width), params


def penalty(width: int = 512, layers: int = 6) -> Work:
    """Value and gradient of the penalty."""
    delta = jax.tree.map(lambda leaf: 1e-3 * leaf, tower(width, layers)[1])
    term = functools.partial(orthogonality_penalty, matrices=VISUAL_MATRICES)
    return compiled(jax.value_and_grad(term), delta)


def step(batch: int = 16, layers: int = 6, width: int = 256, fsdp: int = 1) -> Work:
    """A step of full fine-tuning with the penalty, over all devices."""
    config, params0 = tower(width, layers)
    shardings = make_shardings(batch, fsdp=fsdp)
    mode, optimizer = (
        make_mode("full", default_config()),
        make_optimizer(1e-5, 500, 10_000, 0.1, 1.0),
    )
    train_step = make_train_step(
        mode,
        image_encoder(config, gather=shardings.gather),
        optimizer,
        lambda images: images.astype(jnp.float32) / 255,
        (orthogonality(10.0, "released", VISUAL_MATRICES),),
        shardings,
    )
    params0 = shardings.put_weights(params0)
    state = shardings.put_weights(init_state(mode, optimizer, params0, jax.random.key(0)))
    rng = np.random.default_rng(0)
    head = jax.device_put(
        Head(jnp.asarray(rng.normal(size=(10, width)), jnp.float32), jnp.int32(10)),
        shardings.replicated,
    )
    images = rng.integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, batch)
    data = shardings.put_batch((images, labels.astype(np.int32)))
    return compiled(train_step, state, params0, head, *data, state_first=True)


def addition(tasks: int) -> Work:
    """The sum of `tasks` task vectors."""
    vector = tower(256, 6)[1]
    return compiled(lambda *vectors: add_task_vectors(vectors), *[vector] * tasks)


FAMILIES: dict[str, tuple[Callable[[int], Work], Sequence[int]]] = {
    "penalty, width": (lambda n: penalty(width=n), (256, 512, 768, 1024)),
    "penalty, layers": (lambda n: penalty(layers=n), (3, 6, 12, 24)),
    "train step, batch": (lambda n: step(batch=n), (16, 32, 64, 128)),
    "train step, layers": (lambda n: step(layers=n), (3, 6, 12, 24)),
    "addition, task vectors": (addition, (8, 16, 32, 64)),
}
DEVICES = (1, 2, 4, 8)
DEVICE_FAMILIES = {"train step, devices": False, "train step, devices, fsdp": True}
FILES = (4, 8, 16, 32, 64)


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of a line through the points on a double logarithmic scale."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Seconds and megabytes of one family at every size."""
    make, sizes = FAMILIES[name]
    works = {size: make(size) for size in sizes}
    seconds = medians({str(size): work.run for size, work in works.items()}, rounds)
    return row(name, sizes, list(seconds.values()), [work.megabytes for work in works.values()])


def row(name: str, sizes: Any, seconds: list[float], megabytes: list[float]) -> dict[str, Any]:
    """One row of the table, with the exponents."""
    return {
        "family": name,
        "sizes": list(sizes),
        "seconds": seconds,
        "time exponent": exponent(sizes, seconds),
        "megabytes": megabytes,
        "memory exponent": exponent(sizes, megabytes),
    }


def measure_devices(name: str, rounds: int) -> dict[str, Any]:
    """Measures a step on several numbers of devices, each in a process with that many."""
    found = []
    for devices in DEVICES:
        flags = f"--xla_force_host_platform_device_count={devices}"
        command = [sys.executable, __file__, "--rounds", str(rounds), "--devices-of", name]
        done = subprocess.run(
            command, env=os.environ | {"XLA_FLAGS": flags}, check=True, stdout=subprocess.PIPE
        )
        found.append(json.loads(done.stdout))
    return row(name, DEVICES, *(list(column) for column in zip(*found, strict=True)))


def measure_files(model: str, counts: Sequence[int]) -> dict[str, Any]:
    """Time and peak memory of a sum of several files, once for each count, in its own process.

    The files are one file under many names, and each is opened, checked and read separately.
    """
    sizes = PRESETS[model]
    tower = VisionTransformer(sizes.visual, sizes.projection)
    pixels = jnp.zeros((1, sizes.visual.image_size, sizes.visual.image_size, 3))
    vector = jax.jit(tower.init)(jax.random.key(0), pixels)["params"]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / f"{number}.safetensors" for number in range(max(counts))]
        save_tree(paths[0], {"visual": vector})
        for path in paths[1:]:
            path.hardlink_to(paths[0])
        size = paths[0].stat().st_size / 2**20
        for count in counts:
            command = [sys.executable, __file__, "--merge", *map(str, paths[:count])]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found.append(json.loads(done.stdout))
    name = f"sum of files, {model}, {size:.0f} MB each"
    return row(name, counts, *(list(column) for column in zip(*found, strict=True)))


def merge_once(paths: Sequence[pathlib.Path]) -> tuple[float, float]:
    """Seconds, and megabytes beyond what this process held at the start."""
    jax.block_until_ready(jnp.zeros(1))
    began, before = time.perf_counter(), peak_megabytes()
    merge_files(paths, task_arithmetic())
    return time.perf_counter() - began, peak_megabytes() - before


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices-of", choices=list(DEVICE_FAMILIES), help=argparse.SUPPRESS)
    parser.add_argument("--merge", nargs="+", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        print(json.dumps(merge_once(options.merge)))
        return
    if options.devices_of:
        split = DEVICE_FAMILIES[options.devices_of]
        work = step(batch=GLOBAL_BATCH, fsdp=jax.device_count() if split else 1)
        print(json.dumps([medians({"step": work.run}, options.rounds)["step"], work.megabytes]))
        return
    rows = [measure(name, options.rounds) for name in FAMILIES]
    rows += [measure_devices(name, options.rounds) for name in DEVICE_FAMILIES]
    rows.append(measure_files("ViT-B/32", FILES))

    def series(values: Sequence[float], digits: int) -> str:
        return " / ".join(f"{value:.{digits}f}" for value in values)

    cells = [
        [
            each["family"],
            series(each["sizes"], 0),
            series([1000 * value for value in each["seconds"]], 0),
            f"{each['time exponent']:.2f}",
            series(each["megabytes"], 0),
            f"{each['memory exponent']:.2f}",
        ]
        for each in rows
    ]
    header = ("what grows", "sizes", "ms", "time exponent", "MB", "memory exponent")
    write_page(
        "scaling",
        "How time and memory grow",
        rows,
        markdown_rows(header, cells, left=2),
        "Expected exponents of the penalty: 3 (matrix products) and 2 (matrices) in width, 1 in "
        "layers; of a step: 1 in batch and layers, apart from fixed costs; of addition: 1; over "
        "devices that share one machine: 0 for time, 0 to -1 for memory of the part that is "
        "split; of a sum of files: 1 for time, and memory for one layer of all files and the sum.",
    )


if __name__ == "__main__":
    main()
