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
import numpy as np
from mergers_page import TRIED, kept, report

from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.evaluation.accuracy import Evaluator
from orthoreg_jax.evaluation.edited_models import EditedModels, first_alphas
from orthoreg_jax.evaluation.search import search_addition
from orthoreg_jax.evaluation.selection import normalised
from orthoreg_jax.experiment.evaluation import load_vectors, make_evaluator, put_sets
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.merging import MERGERS, merge_task_vectors
from orthoreg_jax.storage import read_json, replacing, write_json


class Measurement:
    """What measuring a run's mergers needs, made once."""

    def __init__(self, experiment: Experiment) -> None:
        """Reads the images."""
        self.experiment = experiment
        self.norm = float(norm(experiment.params0))
        self._rules = rules_for_part({"visual": experiment.params0}, VISUAL_MATRICES)
        self.sets = put_sets(experiment, experiment.config.tasks)

    def merge(self, vectors: Any, name: str, options: Mapping[str, Any], seed: int) -> Any:
        """The merged task vector of the image tower, and the seconds it took."""
        merger = MERGERS[name](**options)
        key = jax.random.key(seed) if merger.random else None
        trees = {task: {"visual": vector} for task, vector in vectors.items()}
        began = time.monotonic()
        merged = merge_task_vectors(trees, merger, matrices=self._rules, key=key)
        jax.block_until_ready(merged)
        return merged["visual"], time.monotonic() - began

    def accuracies(self, evaluator: Evaluator, vector: Any, alphas: Any) -> np.ndarray:
        """Accuracies (alphas, tasks) on validation."""
        sets = list(self.sets["val"].values())
        return evaluator.accuracies([vector], np.asarray(alphas)[:, None], sets)

    def right(self, evaluator: Evaluator, vector: Any, alphas: Sequence[float]) -> dict[str, Any]:
        """By task: which test images theta_0 + alpha tau classifies correctly, by alpha."""
        rows = np.asarray(alphas)[:, None]
        return {
            task: evaluator.predictions([vector], rows, data) == data.labels
            for task, data in self.sets["test"].items()
        }

    def single(self, evaluator: Evaluator, vectors: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Accuracy of each task's own model, by split and task."""
        config = self.experiment.config
        models = EditedModels(
            config.evaluation,
            evaluator,
            self.sets,
            vectors,
            config.control,
            lambda: None,
            self.norm,
        )
        return models.single()


def measure(
    measurement: Measurement,
    evaluator: Evaluator,
    vectors: Any,
    single: Mapping[str, Mapping[str, float]],
    name: str,
    several: Sequence[dict[str, Any]],
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of a merger with its best options; by task, which test images were right."""
    # In the order of the sets: `single` is in that of the vectors.
    val, test = (
        np.array([single[split][task] for task in measurement.sets[split]])
        for split in ("val", "test")
    )
    tried: list[dict[str, Any]] = []
    best: Any = None
    for options in several:
        merged, seconds = measurement.merge(vectors, name, options, seed)
        length, alphas, rounds = first_alphas(
            measurement.experiment.config.evaluation, merged, measurement.norm
        )
        found = search_addition(
            functools.partial(measurement.accuracies, evaluator, merged),
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
    right = measurement.right(evaluator, merged, [choice.alpha, 1.0])
    accuracy = np.stack([each.mean(axis=1) for each in right.values()], axis=1)
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
    return results, {task: each[0] for task, each in right.items()}


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
                evaluator = make_evaluator(experiment, mode.outputs)
                single = measurement.single(evaluator, vectors)
                for name in missing:
                    several = TRIED[name]
                    if seed != arguments.seeds[0]:
                        first = kept(arguments.workdir, method, arguments.seeds[0], name)
                        several = (read_json(first)["options"],)
                    found, right = measure(
                        measurement, evaluator, vectors, single, name, several, seed
                    )
                    with replacing(paths[name].with_suffix(".npz")) as scratch:
                        np.savez(scratch, **right)
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
