r"""OrthoReg under every way to merge: each merger, without and with the penalty, in every mode.

    python experiments/mergers.py --run runs/embedded_full --workdir runs/mergers

RUN is a finished run, which is only read. Alpha, and each merger's own parameter, are chosen on
validation by the mean of normalised accuracies. The grid of alpha is measured in lengths: it makes
||alpha tau|| a share (`SHARES`) of the length of the plain sum of task vectors, so that it means the
same for every merger. Own parameters are chosen with the first seed and kept for the others. Every
result is kept in WORKDIR, and a run that was cut off goes on.

Writes experiments/results/mergers.md, .json and .png; `--report` does so from what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from orthoreg_jax.arithmetic.matrices import rules_for_part
from orthoreg_jax.arithmetic.merging import MERGERS, merge_task_vectors
from orthoreg_jax.arithmetic.task_vectors import add_task_vectors, norm
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.selection import choose_addition, normalised
from orthoreg_jax.experiment.evaluation import load_vectors, make_evaluator
from orthoreg_jax.experiment.setup import Experiment, prepare
from orthoreg_jax.reporting.style import GREY, method_colour, styled, to_png
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, replacing, write_json, write_text
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.modes.mode import linearized_outputs

RESULTS = pathlib.Path(__file__).parent / "results"
SHARES = (0.1, 0.16, 0.25, 0.4, 0.63, 1.0)
# What is tried of each merger's own parameter, the paper's default first.
TRIED: dict[str, tuple[dict[str, Any], ...]] = {
    "sum": ({},),
    "ties": ({"k": 20}, {"k": 50}),
    "dare": ({"p": 0.9}, {"p": 0.5}),
    "dare_ties": ({"p": 0.9}, {"p": 0.5}),
    "breadcrumbs": ({"beta": 0.85}, {"beta": 0.5}),
    "consensus": ({"lambda_": 0.4}, {"lambda_": 0.2}),
    "tsv_m": ({},),
    "iso_c": ({},),
    "iso_cts": ({"common_space_fraction": 0.8}, {"common_space_fraction": 0.5}),
}
TITLES = {
    "sum": "Task arithmetic",
    "ties": "TIES",
    "dare": "DARE",
    "dare_ties": "DARE-TIES",
    "breadcrumbs": "Breadcrumbs",
    "consensus": "Consensus TA",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "iso_cts": "Iso-CTS",
}
BATCH = {"val": 74, "test": 250}  # sizes that leave little of the last batches empty


def read_config(run: pathlib.Path) -> Any:
    """The config of a run folder."""
    config = default_config()
    for key, value in read_json(run / "config.json").items():
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = tuple(value) if isinstance(value, list) else value
    return config


def open_run(config: Any, run: pathlib.Path) -> Experiment:
    """The experiment of a finished run, whose folder may be of an earlier version."""
    experiment = prepare(config, run / "new")
    made_with = read_json(run / "provenance.json")["inputs"]["model"]
    if made_with != experiment.checkpoint.hash_files():
        raise ValueError(f"{run}: was made with another model than {config.model!r} now is")
    return dataclasses.replace(experiment, folder=run)


class Measurement:
    """Everything that measuring the mergers of a run takes, made once."""

    def __init__(self, experiment: Experiment) -> None:
        """Puts the images on the device."""
        self.experiment = experiment
        self._rules = rules_for_part({"visual": experiment.params0}, VISUAL_MATRICES)
        self._evaluators: dict[Any, Evaluator] = {}
        self._sets: dict[str, list[EvaluationSet]] = {
            split: [
                put_evaluation_set(
                    experiment.heads[task],
                    *experiment.images(task, split),
                    BATCH[split],
                    experiment.local,
                )
                for task in experiment.config.tasks
            ]
            for split in BATCH
        }

    def merge(self, vectors: Any, name: str, options: Mapping[str, Any], seed: int) -> Any:
        """The merged task vector of the image tower, and the alphas of its grid."""
        merger = MERGERS[name](**options)
        key = jax.random.key(seed) if merger.random else None
        trees = {task: {"visual": vector} for task, vector in vectors.items()}
        merged = merge_task_vectors(trees, merger, matrices=self._rules, key=key)
        ratio = float(norm(add_task_vectors(vectors)) / norm(merged))
        return merged["visual"], [share * ratio for share in SHARES]

    def accuracies(
        self, outputs: Any, vectors: Sequence[Any], alphas: Sequence[Sequence[float]], split: str
    ) -> list[np.ndarray]:
        """(alphas, tasks) for each vector; a linearised model takes all of them in one pass."""
        if outputs not in self._evaluators:
            self._evaluators[outputs] = make_evaluator(self.experiment, outputs)
        evaluator, sets = self._evaluators[outputs], self._sets[split]
        if outputs is not linearized_outputs:
            return [
                evaluator.accuracies([vector], np.array(grid)[:, None], sets)
                for vector, grid in zip(vectors, alphas, strict=True)
            ]
        rows = np.zeros((sum(map(len, alphas)), len(vectors)))
        ends = np.cumsum([len(grid) for grid in alphas])
        for column, (grid, end) in enumerate(zip(alphas, ends, strict=True)):
            rows[end - len(grid) : end, column] = grid
        return np.split(evaluator.accuracies(vectors, rows, sets), ends[:-1])


def measure(
    measurement: Measurement, method: str, seed: int, tried: Mapping[str, Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """Of each merger in `tried`: the best of its options and alphas on validation, and its test."""
    experiment = measurement.experiment
    run = read_json(experiment.evaluation_path(method, seed))["run"]
    single = {s: np.array(list(run["single"][s].values())) for s in ("val", "test")}
    vectors = load_vectors(experiment, method, seed)
    outputs = next(m.mode.outputs for m in experiment.methods if m.name == method)
    candidates = [(name, options) for name, several in tried.items() for options in several]
    made = [measurement.merge(vectors, name, options, seed) for name, options in candidates]
    found = measurement.accuracies(outputs, *zip(*made, strict=True), "val")
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
            "share": SHARES[choice.position],
            "at_edge": choice.position in (0, len(SHARES) - 1),
            "single": float(single["test"].mean()),
            "absolute": float(test.mean()),
            "normalised": float(normalised(test, single["test"]).mean()),
            "test": dict(zip(experiment.config.tasks, test.tolist(), strict=True)),
            "validation": score,
            "tried": [
                {"options": o, "alphas": a, "accuracy": v.mean(axis=1).tolist(), "score": s}
                for s, o, _, _, v, a in best[name]
            ],
        }
    return results


def measure_all(arguments: argparse.Namespace) -> None:
    """Measures what WORKDIR does not hold yet."""
    config = read_config(arguments.run)
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
                measurement = measurement or Measurement(open_run(config, arguments.run))
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


def kept(workdir: pathlib.Path, method: str, seed: int, merger: str) -> pathlib.Path:
    """The file of one result."""
    return workdir / method / f"seed{seed}" / f"{merger}.json"


def main() -> None:
    """Measures, then writes table and figure of what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    every = [mode + plus for mode in MODES for plus in ("", ORTHOREG)]
    parser.add_argument("--methods", nargs="+", default=every, choices=every)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        measure_all(arguments)


if __name__ == "__main__":
    main()
