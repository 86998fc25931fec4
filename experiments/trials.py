"""Trials for searches and sweeps: one method with options, fine-tuned and added."""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import jax

from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.config import load_config
from orthoreg_jax.evaluation.accuracy import Evaluator
from orthoreg_jax.evaluation.edited_models import EditedModels, Sets
from orthoreg_jax.experiment.evaluation import load_vectors, make_evaluator, put_sets
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.experiment.finetuning import finetune_all
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.progress import Progress

ALPHAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4)
# Numbers of a trial, in per cent except alpha and the norm; "val Abs" chooses, the others are test.
MEASURES = ("val Abs", "single", "Abs", "Norm", "alpha", "norm")
NEGATION = ("target", "control", "negation alpha")


Found = dict[str, Any]  # a trial's numbers


def parser(description: str, config: str = "configs/embedded.py") -> argparse.ArgumentParser:
    """Parser with the arguments of every script that runs trials."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--config", default=config)
    made.add_argument("--workdir", type=pathlib.Path, required=True)
    made.add_argument("--seeds", nargs="+", type=int, default=[0])
    made.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options")
    return made


class Trials:
    """Runs trials, each in its own run folder; they share compiled evaluation functions."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Reads nothing yet; `arguments` are those of `parser`."""
        self._arguments = arguments
        self._evaluators: dict[Any, Evaluator] = {}
        self._sets: Sets | None = None

    def run(
        self,
        method: str,
        rate: float,
        options: Sequence[str] = (),
        folder: str = "",
        *,
        seeds: Sequence[int] = (),
        negate: bool = False,
    ) -> Found:
        """Runs or resumes one trial.

        Args:
          method: as in a config's `methods`.
          rate: learning rate.
          options: other options, such as "penalty.strength=1".
          folder: name of its run folder, without the learning rate; default: the method.
          seeds: instead of the arguments' seeds.
          negate: also measure negation: "target", "control" and "negation alpha" at 95 % of
            control, as means over tasks.

        Returns:
          Its numbers: the mean over seeds of each of `MEASURES`, standard deviations as "Abs sd",
          each seed's value as "Abs by seed", and mean validation accuracies over `ALPHAS` as
          "curve".
        """
        arguments = self._arguments
        seeds, measures = seeds or arguments.seeds, MEASURES + NEGATION * negate
        overrides = [
            f"methods={method}",
            f"seeds={','.join(map(str, seeds))}",
            f"training.learning_rate={rate}",
            "evaluation.alpha_search=grid",
            f"evaluation.alphas={','.join(map(str, ALPHAS))}",
            *options,
            *arguments.set,
        ]
        config = load_config(arguments.config, overrides)
        workdir = arguments.workdir / f"{folder or method}-lr{rate:g}"
        with jax.default_matmul_precision(config.matmul_precision):
            experiment = prepare(config, workdir)
            finetune_all(experiment)
            rows = [self._measure(experiment, seed, negate) for seed in seeds]
        trial: Found = {"method": method, "learning_rate": rate}
        trial["seeds"] = list(seeds)
        for measure in measures:
            values = trial[f"{measure} by seed"] = [row[measure] for row in rows]
            trial[measure] = statistics.fmean(values)
            trial[f"{measure} sd"] = statistics.stdev(values) if len(values) > 1 else None
        curves = zip(*(row["curve"] for row in rows), strict=True)
        trial["curve"] = [statistics.fmean(values) for values in curves]
        shown = ", ".join(f"{measure} {trial[measure]:.2f}" for measure in measures)
        print(f"{workdir.name}: {shown}", flush=True)
        return trial

    def _measure(self, experiment: Experiment, seed: int, negate: bool) -> dict[str, Any]:
        (method,), options = experiment.methods, experiment.config.evaluation
        outputs = method.mode.outputs
        if self._sets is None:
            self._sets = put_sets(experiment)
        if outputs not in self._evaluators:
            self._evaluators[outputs] = make_evaluator(experiment, outputs)
        vectors = load_vectors(experiment, method.name, seed)
        control = experiment.config.control
        rounds = (8 if negate else 3) * len(vectors)
        with Progress(f"evaluate {method.name} seed {seed}", rounds) as progress:
            edited = EditedModels(
                options,
                self._evaluators[outputs],
                self._sets,
                vectors,
                control,
                progress.update,
                float(norm(experiment.params0)),
            )
            single = edited.single()
            addition = edited.addition(single)
            negation = [edited.negation(task)["shares"]["0.95"] for task in vectors if negate]
        curves = zip(*addition["val"].values(), strict=True)
        curve = [100 * statistics.fmean(accuracies) for accuracies in curves]
        measured = {
            "val Abs": curve[list(options.alphas).index(addition["alpha"])],
            "single": 100 * statistics.fmean(single["test"].values()),
            "Abs": 100 * addition["absolute"],
            "Norm": 100 * (addition["normalised"] or math.nan),
            "alpha": addition["alpha"],
            "norm": statistics.fmean(float(norm(vector)) for vector in vectors.values()),
            "curve": curve,
        }
        if negate:
            for measure in ("target", "control"):
                measured[measure] = 100 * statistics.fmean(each[measure] for each in negation)
            measured["negation alpha"] = statistics.fmean(each["alpha"] for each in negation)
        return measured


def cells(trial: Found, measures: Sequence[str] = MEASURES) -> list[str]:
    """Numbers for a table, with their standard deviations over seeds."""
    texts = []
    for measure in measures:
        deviation = trial[f"{measure} sd"]
        spread = "" if deviation is None else f" ± {deviation:.2f}"
        texts.append(f"{trial[measure]:.2f}{spread}")
    return texts
