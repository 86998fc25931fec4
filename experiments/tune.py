r"""Chooses learning rate and lambda of each way to fine-tune, on validation, and shows all trials.

    python experiments/tune.py --workdir runs/tune --modes full linearized attention lora

For each mode first every learning rate without the penalty, then every lambda with it, at the
learning rate that won: by default four trials for either. The trial with the best validation Abs
wins: mean accuracy of the model with all task vectors added, at its best alpha, mean over seeds.
(Norm would favour trials whose single-task models are bad.)

Each trial is an ordinary run folder in WORKDIR, so that a cut-off search goes on where it was.
Writes experiments/results/tune_MODE.md and .json.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from trials import MEASURES, Trials, cells, parser

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.training.modes import MODES

RESULTS = pathlib.Path(__file__).parent / "results"
LEARNING_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def best(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The trial with the highest validation Abs; the first of equals."""
    return max(trials, key=lambda trial: trial["val Abs"])


def tune(arguments: argparse.Namespace, trials: Trials, mode: str) -> None:
    """All trials of a mode, its table and its choices."""
    plain = [trials.run(mode, rate, 0.0) for rate in arguments.learning_rates]
    rate = best(plain)["learning_rate"]
    penalised = [trials.run(mode + ORTHOREG, rate, value) for value in arguments.strengths]
    chosen = [best(plain), best(penalised)]
    rows = []
    for trial in plain + penalised:
        mark = "**" if any(trial is winner for winner in chosen) else ""
        facts = [trial["method"], f"{trial['learning_rate']:g}", f"{trial['strength']:g}"]
        rows.append([f"{mark}{text}{mark}" for text in facts] + cells(trial))
    header = ("method", "learning rate", "λ", *MEASURES)
    command = "    python " + " ".join(sys.argv)
    seeds = f"Seeds {', '.join(map(str, arguments.seeds))}. Bold: best validation Abs.\n"
    title = f"# Learning rate and λ of `{mode}`, chosen on validation\n"
    text = "\n".join([title, command + "\n", seeds, markdown_rows(header, rows), ""])
    write_text(RESULTS / f"tune_{mode}.md", text)
    write_json(RESULTS / f"tune_{mode}.json", {"trials": plain + penalised, "chosen": chosen})
    print(text)


def main() -> None:
    """Tunes the modes one after the other."""
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    made.add_argument("--learning_rates", nargs="+", type=float, default=LEARNING_RATES)
    made.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    arguments = made.parse_args()
    trials = Trials(arguments)
    for mode in arguments.modes:
        tune(arguments, trials, mode)


if __name__ == "__main__":
    main()
