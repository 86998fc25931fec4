r"""Chooses learning rate and lambda of each way to fine-tune, on validation, and shows all trials.

    python experiments/tune.py --config configs/embedded.py --workdir runs/tune --modes full lora

For each mode first every learning rate without the penalty, then every lambda with it, at the
learning rate that won: by default four trials for either. The trial with the best validation Abs
wins: mean accuracy of the model with all task vectors added, at its best alpha, mean over seeds.
(Norm would favour trials whose single-task models are bad.)

Each trial is an ordinary run folder WORKDIR/METHOD-lrRATE-lambdaSTRENGTH, so that a cut-off search
goes on where it was. Writes WORKDIR/MODE.md and WORKDIR/MODE.json.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
from typing import Any

import jax

from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.config import ORTHOREG, load_config
from orthoreg_jax.evaluation.accuracy import Evaluator
from orthoreg_jax.experiment.edits import Edits, Sets
from orthoreg_jax.experiment.evaluation import load_vectors, make_evaluator, put_sets
from orthoreg_jax.experiment.finetuning import finetune_all
from orthoreg_jax.experiment.setup import Experiment, prepare
from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.training.modes import MODES

COLUMNS = ("single", "Abs", "Norm", "alpha", "‖τ‖")
LEARNING_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
ALPHAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--modes", nargs="+", required=True, choices=list(MODES))
    parser.add_argument("--learning_rates", nargs="+", type=float, default=LEARNING_RATES)
    parser.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options")
    return parser.parse_args()


class Search:
    """The trials of a search; what is compiled for evaluation serves all of them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Reads nothing yet."""
        self._arguments = arguments
        self._evaluators: dict[Any, Evaluator] = {}
        self._sets: Sets | None = None

    def run_trial(self, method: str, rate: float, strength: float) -> dict[str, Any]:
        """Runs or goes on with one trial; returns its numbers in per cent."""
        arguments = self._arguments
        options = [
            f"methods={method}",
            f"seeds={','.join(map(str, arguments.seeds))}",
            f"training.learning_rate={rate}",
            f"evaluation.alphas={','.join(map(str, ALPHAS))}",
            *([f"penalty.strength={strength}"] if strength else []),
            *arguments.set,
        ]
        config = load_config(arguments.config, options)
        folder = arguments.workdir / f"{method}-lr{rate:g}-lambda{strength:g}"
        with jax.default_matmul_precision(config.matmul_precision):
            experiment = prepare(config, folder)
            finetune_all(experiment)
            rows = [self._measure(experiment, seed) for seed in arguments.seeds]
        means = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
        means["val sd"] = statistics.stdev(r["val Abs"] for r in rows) if len(rows) > 1 else 0.0
        trial = {"method": method, "learning_rate": rate, "strength": strength, **means}
        print(trial, flush=True)
        return trial

    def _measure(self, experiment: Experiment, seed: int) -> dict[str, float]:
        (method,), options = experiment.methods, experiment.config.evaluation
        outputs = method.mode.outputs
        if self._sets is None:
            self._sets = put_sets(experiment)
        if outputs not in self._evaluators:
            self._evaluators[outputs] = make_evaluator(experiment, outputs)
        vectors = load_vectors(experiment, method.name, seed)
        control = experiment.config.control
        with Progress(f"evaluate {method.name} seed {seed}", 3 * len(vectors)) as progress:
            edits = Edits(
                options, self._evaluators[outputs], self._sets, vectors, control, progress.update
            )
            single = edits.single()
            addition = edits.addition(single)
        place = list(options.alphas).index(addition["alpha"])
        norms = [float(norm(vector)) for vector in vectors.values()]
        return {
            "val Abs": 100 * statistics.fmean(curve[place] for curve in addition["val"].values()),
            "single": 100 * statistics.fmean(single["test"].values()),
            "Abs": 100 * addition["absolute"],
            "Norm": 100 * addition["normalised"],
            "alpha": addition["alpha"],
            "‖τ‖": statistics.fmean(norms),
        }


def markdown(trials: list[dict], command: str) -> str:
    """All trials as a table, the chosen ones in bold."""
    chosen = set(map(id, best(trials).values()))
    lines = [
        f"    {command}\n",
        "| method | learning rate | λ | validation Abs | test: " + " | ".join(COLUMNS) + " |",
        "|---|" + "---:|" * (3 + len(COLUMNS)),
    ]
    for trial in trials:
        mark = "**" if id(trial) in chosen else ""
        spread = f" ± {trial['val sd']:.2f}" if trial["val sd"] else ""
        cells = [f"{trial[key]:.2f}" for key in COLUMNS]
        lines.append(
            f"| {mark}{trial['method']}{mark} | {trial['learning_rate']:g} | "
            f"{trial['strength']:g} | {mark}{trial['val Abs']:.2f}{mark}{spread} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines) + "\n"


def best(trials: list[dict]) -> dict[str, dict]:
    """Of each method, the trial with the highest validation Abs; the first of equals."""
    winners: dict[str, dict] = {}
    for trial in trials:
        known = winners.get(trial["method"])
        if known is None or trial["val Abs"] > known["val Abs"]:
            winners[trial["method"]] = trial
    return winners


def tune(arguments: argparse.Namespace, search: Search, mode: str) -> None:
    """All trials of a mode, its table and its choice."""
    plain = [search.run_trial(mode, rate, 0.0) for rate in arguments.learning_rates]
    rate = best(plain)[mode]["learning_rate"]
    trials = plain + [
        search.run_trial(mode + ORTHOREG, rate, strength) for strength in arguments.strengths
    ]
    text = markdown(trials, "python " + " ".join(sys.argv))
    write_text(arguments.workdir / f"{mode}.md", text)
    write_json(arguments.workdir / f"{mode}.json", {"trials": trials, "chosen": best(trials)})
    print(text)


def main() -> None:
    """Tunes the modes one after the other."""
    arguments = parse_arguments()
    search = Search(arguments)
    for mode in arguments.modes:
        tune(arguments, search, mode)


if __name__ == "__main__":
    main()
