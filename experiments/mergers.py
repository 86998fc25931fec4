r"""Every merger with every penalty: the task vectors of a run, merged and measured alike.

    python experiments/mergers.py --run runs/embedded_full --workdir runs/mergers

RUN is a run whose tasks are fine-tuned; it is only read. For each method, seed and merger, alpha is
searched in relative length as in a run, with the same number of evaluations for all. Alpha and the
merger's own parameter are chosen on validation, by the mean of normalised accuracies; own
parameters are chosen with the first seed and kept for the others. Every result is stored in
WORKDIR, and an interrupted run resumes.

Writes experiments/results/mergers.md, .json and .png; `--report` uses only what is stored.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mergers_page import TRIED, kept, report

from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.evaluation.edited_models import first_alphas
from orthoreg_jax.evaluation.search import search_addition
from orthoreg_jax.evaluation.selection import normalised
from orthoreg_jax.experiment.evaluation import load_vectors
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.merging import MERGERS, merge_task_vectors
from orthoreg_jax.storage import read_json, replacing, write_json
from orthoreg_jax.tasks.batches import evaluation_batches

BATCH = 216


class Measurement:
    """What measuring a run's mergers needs, made once.

    The images of all tasks are in common batches, and each model computes only their features:
    separate batches would waste computation on padding for small tasks.
    """

    def __init__(self, experiment: Experiment) -> None:
        """Reads the images."""
        self.experiment = experiment
        self.tasks = list(experiment.config.tasks)
        self.norm = float(norm(experiment.params0))
        self._rules = rules_for_part({"visual": experiment.params0}, VISUAL_MATRICES)
        self._compiled: dict[Any, Any] = {}
        self._labels, self._batches = {}, {}
        options = experiment.config.evaluation
        for split, limit in (("val", options.max_val_images), ("test", options.max_test_images)):
            sets = [experiment.images(task, split, limit) for task in self.tasks]
            self._labels[split] = [labels for _, labels in sets]
            self._batches[split] = evaluation_batches(np.concatenate([i for i, _ in sets]), BATCH)

    def merge(self, vectors: Any, name: str, options: Mapping[str, Any], seed: int) -> Any:
        """The merged task vector of the image tower, and the seconds it took."""
        merger = MERGERS[name](**options)
        key = jax.random.key(seed) if merger.random else None
        trees = {task: {"visual": vector} for task, vector in vectors.items()}
        began = time.monotonic()
        merged = merge_task_vectors(trees, merger, matrices=self._rules, key=key)
        jax.block_until_ready(merged)
        return merged["visual"], time.monotonic() - began

    def right(
        self, outputs: Any, vector: Any, alphas: Sequence[float], split: str
    ) -> list[np.ndarray]:
        """By task: which images theta_0 + alpha tau classifies correctly, a row for each alpha."""
        experiment, rows = self.experiment, jnp.asarray(alphas, jnp.float32)[:, None]
        features = np.concatenate(
            [
                self._features(outputs)(experiment.params0, [vector], rows, images)
                for images in self._batches[split]
            ],
            axis=1,
        )
        found, start = [], 0
        for task, labels in zip(self.tasks, self._labels[split], strict=True):
            own = jnp.asarray(features[:, start : start + len(labels)])
            answers = jnp.argmax(experiment.heads[task].logits(own), axis=-1)
            found.append(np.asarray(answers == labels))
            start += len(labels)
        return found

    def accuracies(self, outputs: Any, vector: Any, alphas: Any, split: str) -> np.ndarray:
        """Accuracies (alphas, tasks)."""
        right = self.right(outputs, vector, alphas, split)
        return np.stack([each.mean(axis=1) for each in right], axis=1)

    def single(self, outputs: Any, vectors: Mapping[str, Any]) -> dict[str, list[float]]:
        """Accuracy of each task's own model, by split."""
        return {
            split: [
                float(self.accuracies(outputs, vectors[task], [1.0], split)[0, place])
                for place, task in enumerate(self.tasks)
            ]
            for split in ("val", "test")
        }

    def _features(self, outputs: Any) -> Any:
        if outputs not in self._compiled:
            apply, normalize = self.experiment.apply, self.experiment.preprocessing.normalize
            self._compiled[outputs] = jax.jit(
                lambda params0, vectors, rows, images: outputs(
                    apply, params0, vectors, rows, normalize(images)
                )
            )
        return self._compiled[outputs]


def measure(
    measurement: Measurement,
    outputs: Any,
    vectors: Any,
    single: Mapping[str, Sequence[float]],
    name: str,
    several: Sequence[dict[str, Any]],
    seed: int,
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Results of a merger with its best options; by task, which test images were right."""
    val, test = (np.array(single[split]) for split in ("val", "test"))
    tried: list[dict[str, Any]] = []
    best: Any = None
    for options in several:
        merged, seconds = measurement.merge(vectors, name, options, seed)
        length, alphas, rounds = first_alphas(
            measurement.experiment.config.evaluation, merged, measurement.norm
        )
        found = search_addition(
            functools.partial(measurement.accuracies, outputs, merged, split="val"),
            alphas,
            val,
            rounds,
        )
        score = float(normalised(found.accuracy[found.choice.position], val).mean())
        tried.append(
            {
                "options": options,
                "score": score,
                "alphas": found.alphas.tolist(),
                "accuracy": found.accuracy.tolist(),
            }
        )
        if best is None or score > best[0]:
            best = score, options, found.choice, merged, seconds, length
    score, options, choice, merged, seconds, length = best
    right = measurement.right(outputs, merged, [choice.alpha, 1.0], "test")
    accuracy = np.stack([each.mean(axis=1) for each in right], axis=1)
    results = {
        "merger": name,
        "seed": seed,
        "options": options,
        "alpha": choice.alpha,
        "at_edge": choice.at_edge,
        "relative_length": choice.alpha * length,
        "single": float(test.mean()),
        "absolute": float(accuracy[0].mean()),
        "normalised": float(normalised(accuracy[0], test).mean()),
        "at_one": float(accuracy[1].mean()),
        "seconds": seconds,
        "validation": score,
        "tried": tried,
    }
    return results, [each[0] for each in right]


def measure_all(arguments: argparse.Namespace) -> None:
    """Measures what is not in WORKDIR yet."""
    experiment = reopen(arguments.run)
    measurement: Measurement | None = None
    with jax.default_matmul_precision(experiment.config.matmul_precision):
        for seed in arguments.seeds:
            for method in arguments.methods:
                paths = {name: kept(arguments.workdir, method, seed, name) for name in TRIED}
                missing = [name for name, path in paths.items() if not path.is_file()]
                if not missing:
                    continue
                measurement = measurement or Measurement(experiment)
                vectors = load_vectors(experiment, method, seed)
                mode = next(each.mode for each in experiment.methods if each.name == method)
                single = measurement.single(mode.outputs, vectors)
                for name in missing:
                    several = TRIED[name]
                    if seed != arguments.seeds[0]:
                        first = kept(arguments.workdir, method, arguments.seeds[0], name)
                        several = (read_json(first)["options"],)
                    found, right = measure(
                        measurement, mode.outputs, vectors, single, name, several, seed
                    )
                    with replacing(paths[name].with_suffix(".npz")) as scratch:
                        np.savez(scratch, **dict(zip(measurement.tasks, right, strict=True)))
                    write_json(paths[name], {"method": method} | found)
                    print(
                        f"{method} seed {seed} {name} {found['options']}: alpha "
                        f"{found['alpha']:.4g} Abs {100 * found['absolute']:.2f} Norm "
                        f"{100 * found['normalised']:.2f} at alpha 1 {100 * found['at_one']:.2f}, "
                        f"merged in {found['seconds']:.2f} s",
                        flush=True,
                    )


def main() -> None:
    """Measures, then writes the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--methods", nargs="+", help="default: all of the run")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: all of the run")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--command", help="what to write above the table; this command")
    arguments = parser.parse_args()
    config = read_json(arguments.run / "config.json")
    arguments.methods = arguments.methods or config["methods"]
    arguments.seeds = arguments.seeds or config["seeds"]
    if not arguments.report:
        measure_all(arguments)
    report(arguments)


if __name__ == "__main__":
    main()
