r"""Compares a sweep over alpha, as done here, with one full evaluation for each alpha.

    python experiments/benchmarks/sweeps.py --rounds 3

The usual way, for each alpha: read the pre-trained weights, the task vector and the images from
disk, edit the weights, classify every image. Its forward pass is compiled once, before the clock
starts; a separate column compiles it for each alpha, as happens if a script builds its model in the
loop. Here: read everything once, then run one compiled function over the whole grid; for linearised
models, one pass f0 and one product J tau cover all alphas. Both ways sweep addition over the
validation images of the embedded suite's tasks, and must find the same accuracies. The lower bound
for a sweep of edited models is timed as well: the unedited model's forward pass over images on the
device, once for each alpha.
Writes experiments/results/sweeps.md and .json.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import medians, write_page

from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.clip.zeroshot import pad_heads, zero_shot_head
from orthoreg_jax.config import default_config, load_config
from orthoreg_jax.evaluation.accuracy import Evaluator, put_evaluation_set
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.tasks.batches import evaluation_batches
from orthoreg_jax.tasks.loading import load_images
from orthoreg_jax.tasks.task import load_tasks
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.sharding import make_shardings
from orthoreg_jax.trees import load_tree, save_tree

ROOT = pathlib.Path(__file__).parents[2]
BATCH = 128


class Sweeps:
    """Both ways to sweep one mode's vector over the same grid and images."""

    def __init__(self, mode: str, alphas: tuple[float, ...], vector_path: pathlib.Path) -> None:
        """Prepares both ways, without compiling."""
        self.alphas, self.vector_path = np.asarray(alphas), vector_path
        self.names = load_config(ROOT / "configs" / "embedded.py").tasks
        self.outputs = make_mode(mode, default_config()).outputs
        checkpoint = load_checkpoint("embedded")
        self.apply = image_encoder(checkpoint.config)
        self.normalize = load_preprocessing(checkpoint.directory, checkpoint.config).normalize
        heads = {
            name: zero_shot_head(checkpoint, task.classes, task.templates)
            for name, task in load_tasks("embedded", self.names).items()
        }
        self.heads = jax.device_put(pad_heads(heads))
        self.one = jax.jit(self._one)
        self.plain = jax.jit(lambda params, images: self.apply(params, self.normalize(images)))
        self.params0 = jax.device_put(checkpoint.params["visual"])

    def _one(self, params0: Any, vector: Any, alpha: Any, head: Any, images: Any) -> Any:
        pixels = self.normalize(images)
        features = self.outputs(self.apply, params0, [vector], alpha.reshape(1, 1), pixels)[0]
        return jnp.argmax(head.logits(features), axis=-1)

    def sweep_usual(self, recompile: bool = False) -> np.ndarray:
        """The usual way: everything again for each alpha."""
        rows, one = [], self.one
        for alpha in self.alphas:
            if recompile:
                one = jax.jit(functools.partial(self._one))  # a new function to JAX
            checkpoint = load_checkpoint("embedded")
            preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
            params0 = jax.device_put(checkpoint.params["visual"])
            vector = load_tree(self.vector_path)
            row = []
            for name, task in load_tasks("embedded", self.names).items():
                data = task.splits["val"]
                images = load_images(data.images, range(len(data)), preprocessing)
                batches = evaluation_batches(images, BATCH)
                found = [
                    one(params0, vector, jnp.float32(alpha), self.heads[name], batch)
                    for batch in batches
                ]
                answers = np.concatenate(found)[: len(data.labels)]
                row.append(np.mean(answers == data.labels))
            rows.append(row)
        return np.array(rows)

    def sweep_here(self) -> np.ndarray:
        """The way here: everything once."""
        checkpoint = load_checkpoint("embedded")
        preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
        shardings = make_shardings()
        sets = []
        for name, task in load_tasks("embedded", self.names).items():
            data = task.splits["val"]
            images = load_images(data.images, range(len(data)), preprocessing)
            sets.append(put_evaluation_set(self.heads[name], images, data.labels, BATCH, shardings))
        vector = jax.device_put(load_tree(self.vector_path))
        if not hasattr(self, "evaluator"):
            self.evaluator = Evaluator(self.apply, self.params0, self.normalize, self.outputs)
        self.sets = sets
        return self.evaluator.accuracies([vector], self.alphas[:, None], sets)

    def forward_alone(self) -> Any:
        """One forward pass for each alpha; call it after `sweep_here`."""
        return [
            self.plain(self.params0, images)
            for _ in self.alphas
            for data in self.sets
            for images in data.batches
        ]


def measure(mode: str, alphas: tuple[float, ...], rounds: int) -> dict[str, Any]:
    """Medians of both ways, interleaved."""
    rng = np.random.default_rng(0)
    vector = jax.tree.map(
        lambda leaf: rng.normal(scale=0.002, size=leaf.shape).astype(np.float32),
        load_checkpoint("embedded").params["visual"],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vector.safetensors"
        save_tree(path, vector)
        sweeps = Sweeps(mode, alphas, path)
        found: dict[str, np.ndarray] = {}
        ways = {
            "usual": lambda: found.update(usual=sweeps.sweep_usual()),
            "recompiled": lambda: found.update(usual=sweeps.sweep_usual(recompile=True)),
            "here": lambda: found.update(here=sweeps.sweep_here()),
            "forward": sweeps.forward_alone,
        }
        seconds = medians(ways, rounds)
    # The prediction for an image on the border between two classes may differ.
    assert np.abs(found["usual"] - found["here"]).max() < 0.02, found
    return {"mode": mode, "alphas": len(alphas), **seconds}


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    alphas = default_config().evaluation.alphas
    rows = [measure(mode, alphas, options.rounds) for mode in ("full", "linearized")]
    cells = [
        [row["mode"], f"{row['here']:.2f}"]
        + [text for way in ("usual", "recompiled", "forward")
           for text in (f"{row[way]:.2f}", f"{row[way] / row['here']:.2f}")]
        for row in rows
    ]  # fmt: skip
    title = f"Sweeps over {len(alphas)} alphas, {jax.devices()[0].device_kind}"
    header = ("mode", "here, s", "one evaluation for each alpha, s", "/ here",
              "the same, compiled for each alpha, s", "/ here",
              "forward passes alone, s", "/ here")  # fmt: skip
    note = (
        "An edited model is a new function for each alpha: it has to process every image again, "
        "so its forward passes alone are a lower bound for its sweep. A linearised model is f0 + "
        "alpha J tau: two passes give the whole grid."
    )
    write_page("sweeps", title, rows, markdown_rows(header, cells), note)


if __name__ == "__main__":
    main()
