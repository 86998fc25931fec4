r"""Chooses learning rate and lambda of methods on validation, and shows every trial.

    python experiments/tune.py --config configs/embedded.py --workdir runs/tune \
        --methods full full+orthoreg --learning_rates 3e-5 1e-4 --strengths 0.1 1 10 100

Each trial is an ordinary run folder WORKDIR/METHOD-lrRATE-lambdaSTRENGTH, so that a cut-off search
goes on where it was. A method without the penalty has one trial for each learning rate; one with
it a trial for each pair. The trial with the best validation Abs wins: mean accuracy of the model
with all task vectors added, at its best alpha, mean over seeds. (Norm would favour trials whose
single-task models are bad.) Writes WORKDIR/tune.md and WORKDIR/tune.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import statistics
import sys

from orthoreg_jax import cli
from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.storage import read_json, write_json, write_text

COLUMNS = ("single", "Abs", "Norm", "alpha", "negated", "control")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--learning_rates", nargs="+", type=float, required=True)
    parser.add_argument("--strengths", nargs="+", type=float, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="more options")
    return parser.parse_args()


def run_trial(
    arguments: argparse.Namespace, method: str, rate: float, strength: float
) -> dict[str, object]:
    """Runs or reads one trial; returns its numbers in per cent."""
    folder = arguments.workdir / f"{method}-lr{rate:g}-lambda{strength:g}"
    options = [
        f"methods={method}",
        f"seeds={','.join(map(str, arguments.seeds))}",
        f"training.learning_rate={rate}",
        *([f"penalty.strength={strength}"] if strength else []),
        *arguments.set,
    ]
    place = ["--config", arguments.config, "--workdir", str(folder)]
    changes = [f"--config.{option}" for option in options]
    for stage in ("finetune", "evaluate"):  # a report for each trial is nobody's reading
        if cli.main([stage, *place, *changes]):
            raise SystemExit(1)
    results: Results = read_json(folder / "results.json")
    rows = [_numbers(run, results["alphas"]) for run in results["runs"]]
    means = {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}
    means["val sd"] = statistics.stdev(row["val Abs"] for row in rows) if len(rows) > 1 else 0.0
    return {"method": method, "learning_rate": rate, "strength": strength, **means}


def _numbers(run, alphas: list[float]) -> dict[str, float]:
    addition = run["addition"]
    place = alphas.index(addition["alpha"])
    negation = [task["shares"]["0.95"] for task in run["negation"].values()]
    return {
        "val Abs": 100 * statistics.fmean(curve[place] for curve in addition["val"].values()),
        "single": 100 * statistics.fmean(run["single"]["test"].values()),
        "Abs": 100 * addition["absolute"],
        "Norm": 100 * addition["normalised"],
        "alpha": addition["alpha"],
        "negated": 100 * statistics.fmean(each["target"] for each in negation),
        "control": 100 * statistics.fmean(each["control"] for each in negation),
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


def main() -> None:
    """Runs all trials."""
    arguments = parse_arguments()
    trials = []
    for method in arguments.methods:
        strengths = arguments.strengths if method.endswith(ORTHOREG) else [0.0]
        for rate, strength in itertools.product(arguments.learning_rates, strengths):
            trials.append(run_trial(arguments, method, rate, strength))
    text = markdown(trials, "python " + " ".join(sys.argv))
    write_text(arguments.workdir / "tune.md", text)
    write_json(arguments.workdir / "tune.json", {"trials": trials, "chosen": best(trials)})
    print(text)
    for trial in best(trials).values():
        print(json.dumps({key: trial[key] for key in ("method", "learning_rate", "strength")}))


if __name__ == "__main__":
    main()
