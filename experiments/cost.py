r"""What each way to fine-tune costs, with and without the penalty (the paper's table 3).

    python experiments/cost.py --model ViT-B/32 --batch 32 --rounds 5

All train steps are compiled first and then timed in turn, round after round, so that a slow
moment of the machine meets all of them alike; the median is shown, and its ratio to `full`.
Memory is what the compiled step holds at once, by XLA's own account: state and inputs, outputs
that reuse none of them, and temporary arrays. Weights are random: neither time nor memory depends
on them. Writes experiments/results/cost_MODEL.md and .json.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from published import COST

from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.config import PRESETS, ClipConfig
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.progress import Progress
from orthoreg_jax.reporting.tables import NONE, markdown_rows
from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.step import Penalty, init_state, make_optimizer, make_train_step

RESULTS = pathlib.Path(__file__).parent / "results"
CLASSES = 100


@functools.cache
def random_model(model: str) -> tuple[ClipConfig, Any]:
    """Sizes and random weights of an image tower."""
    config = PRESETS[model] if model in PRESETS else load_checkpoint(model).config
    tower = VisionTransformer(config.visual, config.projection)
    pixels = jnp.zeros((1, config.visual.image_size, config.visual.image_size, 3))
    return config, tower.init(jax.random.key(0), pixels)["params"]


class Timed:
    """One method's compiled train step, its state, and the seconds it took."""

    def __init__(self, model: str, name: str, batch: int) -> None:
        """Compiles it."""
        config, params0 = random_model(model)
        mode_name, plus, _ = name.partition(ORTHOREG)
        mode = MODES[mode_name](default_config().lora)
        optimizer = make_optimizer(1e-5, 500, 10_000, 0.1, 1.0)
        step = make_train_step(
            mode,
            image_encoder(config),
            optimizer,
            lambda images: images.astype(jnp.float32) / 255,
            Penalty(10.0, "released", VISUAL_MATRICES) if plus else None,
        )
        self.model, self.name, self.seconds = model, name, list[float]()
        # A copy: the step gives its state's memory away.
        start = jax.tree.map(jnp.array, params0)
        self._state = init_state(mode, optimizer, start, jax.random.key(0))
        size, rng = config.visual.image_size, np.random.default_rng(0)
        head = Head(jnp.asarray(rng.normal(size=(CLASSES, config.projection)), jnp.float32),
                    jnp.int32(CLASSES))  # fmt: skip
        images = jnp.asarray(rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8))
        labels = jnp.asarray(rng.integers(0, CLASSES, batch))
        self._fixed = (params0, head, images, labels)
        self.trainable = sum(leaf.size for leaf in jax.tree.leaves(self._state.trainable))
        began = time.perf_counter()
        self._compiled = step.lower(self._state, *self._fixed).compile()  # type: ignore[attr-defined]
        self.compile_seconds = time.perf_counter() - began
        usage = self._compiled.memory_analysis()
        held = usage.argument_size_in_bytes + usage.output_size_in_bytes
        self.bytes = held - usage.alias_size_in_bytes + usage.temp_size_in_bytes

    def run(self) -> None:
        """One step, timed."""
        began = time.perf_counter()
        self._state, metrics = self._compiled(self._state, *self._fixed)
        jax.block_until_ready((self._state, metrics))
        self.seconds.append(time.perf_counter() - began)


def measure(model: str, batch: int, rounds: int, methods: list[str]) -> list[dict[str, Any]]:
    """One row for each method."""
    with Progress("compile", len(methods)) as progress:
        timed = []
        for name in methods:
            timed.append(Timed(model, name, batch))
            progress.update()
    with Progress("time", (rounds + 1) * len(timed)) as progress:
        for _ in range(rounds + 1):
            for each in timed:
                each.run()
                progress.update()
    rows = []
    base = statistics.median(timed[0].seconds[1:])  # the first round warms caches up
    for each in timed:
        median = statistics.median(each.seconds[1:])
        rows.append(
            {
                "method": each.name,
                "step_seconds": median,
                "step_ratio": median / base,
                "megabytes": each.bytes / 2**20,
                "trainable": each.trainable,
                "compile_seconds": each.compile_seconds,
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]], options: argparse.Namespace, device: str) -> str:
    """The rows as a table."""
    base = rows[0]["method"]
    header = ("method", "step, s", f"/ {base}", "memory, MB", f"/ {base}", "trained parameters",
              "compile, s", f"paper: time / {base}", f"memory / {base}")  # fmt: skip

    def published(method: str, which: int) -> str:
        whole, own = COST.get(base, (None, None))[which], COST.get(method, (None, None))[which]
        return f"{own / whole:.2f}" if whole and own else NONE

    cells = [
        [
            row["method"],
            f"{row['step_seconds']:.3f}",
            f"{row['step_ratio']:.2f}",
            f"{row['megabytes']:.0f}",
            f"{row['megabytes'] / rows[0]['megabytes']:.2f}",
            f"{row['trainable']:,}",
            f"{row['compile_seconds']:.1f}",
            *(published(row["method"], which) for which in (0, 1)),
        ]
        for row in rows
    ]
    lines = [
        f"# What a train step costs: {options.model}, batch {options.batch}, float32, {device}\n",
        f"    python {' '.join(sys.argv)}\n",
        markdown_rows(header, cells),
        "\nThe paper's are of ViT-L/14 on Cars: time of the whole training, memory of the GPU.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [mode + plus for mode in MODES for plus in ("", ORTHOREG)]
    parser.add_argument("--model", default="embedded", help="embedded, ViT-B/32, a directory")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    options = parser.parse_args()
    rows = measure(options.model, options.batch, options.rounds, options.methods)
    text = markdown(rows, options, jax.devices()[0].device_kind)
    name = f"cost_{pathlib.Path(options.model.replace('/', '')).name}"
    write_text(RESULTS / f"{name}.md", text)
    write_json(RESULTS / f"{name}.json", rows)
    print(text)


if __name__ == "__main__":
    main()
