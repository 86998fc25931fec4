r"""OrthoReg with every merger: each one without and with the penalty, in every mode.

    python experiments/mergers.py --run runs/embedded_full --workdir runs/mergers

RUN is a finished run, which is only read. Alpha and each merger's own parameter are chosen on
validation, by the mean of normalised accuracies. The grid of alpha consists of lengths, so that it
means the same for every merger: ||alpha tau|| is a share of ||sum_t tau_t||. Own parameters are
chosen with the first seed and kept for the others. Every result is stored in WORKDIR, and an
interrupted run resumes.

Writes experiments/results/mergers.md, .json and .png; `--report` uses only what is stored.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mergers_page import TRIED, kept, report, shares

from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.arithmetic.task_vectors import add_task_vectors, norm
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.selection import choose_addition, normalised
from orthoreg_jax.experiment.evaluation import load_vectors
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.merging import MERGERS, merge_task_vectors
from orthoreg_jax.storage import read_json, write_json
from orthoreg_jax.tasks.batches import evaluation_batches
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.modes.mode import linearized_outputs

BATCH = 216  # three of them are exactly the embedded suite's validation images


class Measurement:
    """What measuring a run's mergers needs, made once.

    The images of all tasks are in common batches, and each model computes only their features:
    separate batches would waste computation on padding for small tasks.
    """

    def __init__(self, experiment: Experiment) -> None:
        """Reads the images."""
        self.experiment = experiment
        self.tasks = list(experiment.config.tasks)
        self._rules = rules_for_part({"visual": experiment.params0}, VISUAL_MATRICES)
        self._features: dict[Any, Any] = {}
        self._labels, self._batches = {}, {}
        for split in ("val", "test"):
            sets = [experiment.images(task, split) for task in self.tasks]
            self._labels[split] = [labels for _, labels in sets]
            self._batches[split] = evaluation_batches(np.concatenate([i for i, _ in sets]), BATCH)

    def merge(self, vectors: Any, name: str, options: Mapping[str, Any], seed: int) -> Any:
        """The merged task vector of the image tower, and the alphas of its grid."""
        merger = MERGERS[name](**options)
        key = jax.random.key(seed) if merger.random else None
        trees = {task: {"visual": vector} for task, vector in vectors.items()}
        merged = merge_task_vectors(trees, merger, matrices=self._rules, key=key)
        ratio = float(norm(add_task_vectors(vectors)) / norm(merged))
        return merged["visual"], [share * ratio for share in shares(name)]

    def accuracies(
        self, outputs: Any, vectors: Sequence[Any], alphas: Sequence[Sequence[float]], split: str
    ) -> list[np.ndarray]:
        """Accuracies (alphas, tasks) of each vector; a linearised model takes all in one pass."""
        if outputs is not linearized_outputs and len(vectors) > 1:
            pairs = zip(vectors, alphas, strict=True)
            return [self.accuracies(outputs, [v], [a], split)[0] for v, a in pairs]
        rows = np.zeros((sum(map(len, alphas)), len(vectors)), np.float32)
        ends = np.cumsum([len(grid) for grid in alphas])
        for column, (grid, end) in enumerate(zip(alphas, ends, strict=True)):
            rows[end - len(grid) : end, column] = grid
        if outputs not in self._features:
            normalize = self.experiment.preprocessing.normalize
            self._features[outputs] = jax.jit(
                lambda params0, vectors, rows, images: outputs(
                    self.experiment.apply, params0, vectors, rows, normalize(images)
                )
            )
        features = np.concatenate(
            [
                self._features[outputs](self.experiment.params0, list(vectors), rows, images)
                for images in self._batches[split]
            ],
            axis=1,
        )
        start, columns = 0, []
        for task, labels in zip(self.tasks, self._labels[split], strict=True):
            own = jnp.asarray(features[:, start : start + len(labels)])
            right = jnp.argmax(self.experiment.heads[task].logits(own), axis=-1) == labels
            columns.append(np.asarray(right).mean(axis=1))
            start += len(labels)
        return np.split(np.stack(columns, axis=1), ends[:-1])


def measure(
    measurement: Measurement, method: str, seed: int, tried: Mapping[str, Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """By merger in `tried`: its best options and alpha on validation, and its test results."""
    experiment = measurement.experiment
    run = read_json(experiment.evaluation_path(method, seed))["run"]
    single = {
        split: np.array([run["single"][split][task] for task in measurement.tasks])
        for split in ("val", "test")
    }
    vectors = load_vectors(experiment, method, seed)
    outputs = next(m.mode.outputs for m in experiment.methods if m.name == method)
    candidates = [(name, options) for name, several in tried.items() for options in several]
    made = [measurement.merge(vectors, name, options, seed) for name, options in candidates]
    found = measurement.accuracies(
        outputs, [merged for merged, _ in made], [alphas for _, alphas in made], "val"
    )
    best: dict[str, Any] = {}
    for (name, options), (merged, alphas), accuracy in zip(candidates, made, found, strict=True):
        choice = choose_addition(np.array(alphas), accuracy, single["val"])
        score = float(normalised(accuracy[choice.position], single["val"]).mean())
        best.setdefault(name, []).append((score, options, choice, merged, accuracy, alphas))
    chosen = {name: max(several, key=lambda each: each[0]) for name, several in best.items()}
    tested = measurement.accuracies(
        outputs, [each[3] for each in chosen.values()], [[c[2].alpha] for c in chosen.values()],
        "test",
    )  # fmt: skip
    results = {}
    for (name, (score, options, choice, *_)), (test,) in zip(chosen.items(), tested, strict=True):
        results[name] = {
            "method": method,
            "seed": seed,
            "merger": name,
            "options": options,
            "alpha": choice.alpha,
            "share": shares(name)[choice.position],
            "at_edge": choice.position in (0, len(shares(name)) - 1),
            "single": float(single["test"].mean()),
            "absolute": float(test.mean()),
            "normalised": float(normalised(test, single["test"]).mean()),
            "test": dict(zip(measurement.tasks, test.tolist(), strict=True)),
            "validation": score,
            "tried": [
                {"options": o, "alphas": a, "accuracy": v.tolist(), "score": s}
                for s, o, _, _, v, a in best[name]
            ],
        }
    return results


def measure_all(arguments: argparse.Namespace) -> None:
    """Measures what is not in WORKDIR yet."""
    config = reopen(arguments.run).config
    with jax.default_matmul_precision(config.matmul_precision):
        measurement = None
        for method in arguments.methods:
            for seed in config.seeds:
                paths = {name: kept(arguments.workdir, method, seed, name) for name in TRIED}
                missing = [name for name, path in paths.items() if not path.is_file()]
                if not missing:
                    continue
                tried: dict[str, Any] = {name: TRIED[name] for name in missing}
                if seed != config.seeds[0]:
                    first = {
                        name: read_json(kept(arguments.workdir, method, config.seeds[0], name))
                        for name in missing
                    }
                    tried = {name: [result["options"]] for name, result in first.items()}
                measurement = measurement or Measurement(reopen(arguments.run))
                # A linearised model is measured under all mergers at once, others one by one.
                linear = method.startswith("linearized")
                for names in [missing] if linear else [[name] for name in missing]:
                    part = {name: tried[name] for name in names}
                    for name, result in measure(measurement, method, seed, part).items():
                        write_json(paths[name], result)
                        print(
                            f"{method} seed {seed} {name} {result['options']}: alpha "
                            f"{result['alpha']:.3f} Abs {100 * result['absolute']:.2f} Norm "
                            f"{100 * result['normalised']:.2f}",
                            flush=True,
                        )


def main() -> None:
    """Measures, then writes the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    every = [mode + plus for mode in MODES for plus in ("", ORTHOREG)]
    parser.add_argument("--methods", nargs="+", default=every, choices=every)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--command", help="what to write above the table; this command")
    arguments = parser.parse_args()
    if not arguments.report:
        measure_all(arguments)
    report(arguments)


if __name__ == "__main__":
    main()
