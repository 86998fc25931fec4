r"""Cost of each way to fine-tune, with and without the penalty (the paper's table 3).

    python experiments/benchmarks/cost.py --model ViT-B/32 --batch 32 --rounds 5

All train steps are compiled first and then timed in turns, round after round, so that a slow moment
of the machine affects all of them. The table shows the median and its ratio to `full`. Memory is
what a step holds at once, as reported by XLA: state, pre-trained weights and inputs, outputs that
reuse none of them, and temporary arrays. The table also shows the peak of a process that only takes
two such steps (of host memory only, on a GPU or TPU). Weights are random, because neither time nor
memory depends on them. The lower bound of a step is shown as well: its matrix products alone,
counted in the traced step, at the rate at which this machine multiplies large matrices. If torch is
installed (`make parity` sets up such an environment), the same steps in plain PyTorch take turns,
too. Writes experiments/results/cost_MODEL.md and .json.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import (
    SIDE,
    keep_memory,
    medians,
    peak_megabytes,
    product_operations,
    square_product,
    write_page,
)

from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.config import PRESETS, ClipConfig
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.progress import Progress
from orthoreg_jax.reporting.tables import NONE, markdown_rows
from orthoreg_jax.training.modes import MODES, make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

CLASSES, TORCH, PRODUCT = 100, "PyTorch: ", "a product"
# The paper's table 3, ViT-L/14 on Cars: minutes and GB.
COST = {
    "full": (158, 42.6),
    "full+orthoreg": (177, 44.5),
    "linearized": (281, 68.0),
    "attention": (126, None),
    "attention+orthoreg": (133, None),
}


@functools.cache
def random_model(model: str) -> tuple[ClipConfig, Any]:
    """Sizes and random weights of an image tower."""
    config = PRESETS[model] if model in PRESETS else load_checkpoint(model).config
    tower = VisionTransformer(config.visual, config.projection)
    pixels = jnp.zeros((1, config.visual.image_size, config.visual.image_size, 3))
    return config, jax.jit(tower.init)(jax.random.key(0), pixels)["params"]


class CompiledStep:
    """One method's compiled train step, and its state from the first step on."""

    def __init__(
        self,
        model: str,
        name: str,
        batch: int,
        dtype: str = "float32",
        remat: bool = False,
        accumulate: int = 1,
        penalty_precision: str = "highest",
    ) -> None:
        """Compiles the step, at the current default precision of matrix products."""
        config, params0 = random_model(model)
        mode_name, plus, _ = name.partition(ORTHOREG)
        mode = make_mode(mode_name, default_config())
        optimizer = make_optimizer(1e-5, 500, 10_000, 0.1, 1.0)
        step = make_train_step(
            mode,
            image_encoder(config, jnp.dtype(dtype), remat),
            optimizer,
            lambda images: images.astype(jnp.float32) / 255,
            (orthogonality(10.0, "released", VISUAL_MATRICES, penalty_precision),) if plus else (),
            accumulate=accumulate,
        )
        self._init = functools.partial(init_state, mode, optimizer, params0, jax.random.key(0))
        self._state: Any = None
        shapes = jax.eval_shape(self._init)
        size, rng = config.visual.image_size, np.random.default_rng(0)
        head = Head(jnp.asarray(rng.normal(size=(CLASSES, config.projection)), jnp.float32),
                    jnp.int32(CLASSES))  # fmt: skip
        images = jnp.asarray(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8))
        labels = jnp.asarray(rng.integers(0, CLASSES, batch))
        self._fixed = (params0, head, images, labels)
        self.trainable = sum(leaf.size for leaf in jax.tree.leaves(shapes.trainable))
        traced = step.trace(shapes, *self._fixed)  # type: ignore[attr-defined]
        self.operations = product_operations(traced.jaxpr.jaxpr)
        began = time.perf_counter()
        self._compiled = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - began
        usage = self._compiled.memory_analysis()
        # A compiled step counts only the arguments that it reads. Without the penalty, full
        # fine-tuning does not read the pre-trained weights, which a run holds nevertheless.
        arguments = sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((shapes, self._fixed))
        )
        made = usage.output_size_in_bytes - usage.alias_size_in_bytes
        self.bytes = arguments + made + usage.temp_size_in_bytes

    def run(self) -> Any:
        """Takes one step; the first one makes the state."""
        if self._state is None:
            self._state = self._init()
        self._state, metrics = self._compiled(self._state, *self._fixed)
        return self._state, metrics

    def forget(self) -> None:
        """Drops the state."""
        self._state = None


def torch_steps(model: str, batch: int, methods: list[str]) -> dict[str, Callable[[], Any]]:
    """PyTorch's steps, one for each method; none if PyTorch is not installed."""
    try:
        from torch_step import torch_step
    except ImportError:
        return {}
    config = random_model(model)[0]
    return {name: torch_step(config, name, batch, CLASSES) for name in methods}


def measure(model: str, batch: int, rounds: int, methods: list[str]) -> list[dict[str, Any]]:
    """One row for each method."""
    keep_memory()
    steps, peaks = {}, {}
    for name in methods:
        command = [sys.executable, __file__, "--model", model, "--batch", str(batch)]
        done = subprocess.run([*command, "--alone", name], check=True, stdout=subprocess.PIPE)
        peaks[name] = float(done.stdout)
    with Progress("compile", len(methods)) as progress:
        for name in methods:
            steps[name] = CompiledStep(model, name, batch)
            progress.update()
    ways: dict[str, Callable[[], Any]] = {name: step.run for name, step in steps.items()}
    ways |= {TORCH + name: way for name, way in torch_steps(model, batch, methods).items()}
    seconds = medians(ways | {PRODUCT: square_product()}, rounds)
    rate = 2 * SIDE**3 / seconds[PRODUCT]  # timed among the steps
    return [
        {
            "method": name,
            "step_seconds": seconds[name],
            "step_ratio": seconds[name] / seconds[methods[0]],
            "torch_seconds": seconds.get(TORCH + name),
            "product_gigaflop": step.operations / 1e9,
            "product_seconds": step.operations / rate,
            "megabytes": step.bytes / 2**20,
            "process_megabytes": peaks[name],
            "trainable": step.trainable,
            "compile_seconds": step.compile_seconds,
        }
        for name, step in steps.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows, next to the paper's ratios."""
    base = rows[0]["method"]
    header = ("method", "step, s", f"/ {base}", "PyTorch, s", "/ PyTorch",
              "its products, GFLOP", "step / these alone", "memory, MB",
              f"/ {base}", "process, MB", f"/ {base}", "trained parameters", "compile, s",
              f"paper: time / {base}", f"memory / {base}")  # fmt: skip

    def published(method: str, which: int) -> str:
        whole, own = COST.get(base, (None, None))[which], COST.get(method, (None, None))[which]
        return f"{own / whole:.2f}" if whole and own else NONE

    def compared(ours: float, theirs: float | None) -> tuple[str, str]:
        return (f"{theirs:.3f}", f"{ours / theirs:.2f}") if theirs else (NONE, NONE)

    cells = [
        [
            row["method"],
            f"{row['step_seconds']:.3f}",
            f"{row['step_ratio']:.2f}",
            *compared(row["step_seconds"], row["torch_seconds"]),
            f"{row['product_gigaflop']:.1f}",
            f"{row['step_seconds'] / row['product_seconds']:.2f}",
            f"{row['megabytes']:.0f}",
            f"{row['megabytes'] / rows[0]['megabytes']:.2f}",
            f"{row['process_megabytes']:.0f}",
            f"{row['process_megabytes'] / rows[0]['process_megabytes']:.2f}",
            f"{row['trainable']:,}",
            f"{row['compile_seconds']:.1f}",
            *(published(row["method"], which) for which in (0, 1)),
        ]
        for row in rows
    ]
    return markdown_rows(header, cells)


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [mode + plus for mode in MODES for plus in ("", ORTHOREG)]
    parser.add_argument("--model", default="embedded", help="embedded, ViT-B/32, a directory")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    parser.add_argument("--alone", choices=names, help="print the peak of a process with this one")
    options = parser.parse_args()
    if options.alone:
        step = CompiledStep(options.model, options.alone, options.batch)
        jax.block_until_ready([step.run() for _ in range(2)][-1])
        print(peak_megabytes())
        return
    rows = measure(options.model, options.batch, options.rounds, options.methods)
    device = jax.devices()[0].device_kind
    write_page(
        f"cost_{pathlib.Path(options.model.replace('/', '')).name}",
        f"Cost of a train step: {options.model}, batch {options.batch}, float32, {device}",
        rows,
        table(rows),
        "The paper's numbers are for ViT-L/14 on Cars: time of the whole training, GPU memory.",
    )


if __name__ == "__main__":
    main()
