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

from orthoreg_jax import cli
from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.storage import read_json, write_json, write_text
from orthoreg_jax.training.modes import MODES

COLUMNS = ("single", "Abs", "Norm", "alpha", "negated", "control")
LEARNING_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
# What does not help to choose is left out.
CHEAP = (
    "evaluation.alphas=0,0.1,0.2,0.3,0.5,0.8,1.2",
    "evaluation.feature_images=0",
    "evaluation.disentanglement_tasks=",
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--modes", nargs="+", required=True, choices=list(MODES))
    parser.add_argument("--learning_rates", nargs="+", type=float, default=LEARNING_RATES)
    parser.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=CHEAP, metavar="NAME=VALUE", help="options")
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


def tune(arguments: argparse.Namespace, mode: str) -> None:
    """All trials of a mode, its table and its choice."""
    plain = [run_trial(arguments, mode, rate, 0.0) for rate in arguments.learning_rates]
    rate = best(plain)[mode]["learning_rate"]
    trials = plain + [
        run_trial(arguments, mode + ORTHOREG, rate, strength) for strength in arguments.strengths
    ]
    text = markdown(trials, "python " + " ".join(sys.argv))
    write_text(arguments.workdir / f"{mode}.md", text)
    write_json(arguments.workdir / f"{mode}.json", {"trials": trials, "chosen": best(trials)})
    print(text)


def main() -> None:
    """Tunes the modes one after the other."""
    arguments = parse_arguments()
    for mode in arguments.modes:
        tune(arguments, mode)


if __name__ == "__main__":
    main()
