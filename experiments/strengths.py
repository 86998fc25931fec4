r"""How lambda changes single-task and added models (the paper's figure 6).

    python experiments/strengths.py --workdir runs/tune --mode full --learning_rate 3e-4 \
        --seeds 0 1 2

Every trial is a run folder in WORKDIR, the same as those of tune.py. Writes
experiments/results/strengths_MODE.md, .json and .png: accuracies over lambda, and the curves over
alpha for each lambda.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from trials import ALPHAS, MEASURES, Trials, cells, parser

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.style import SOFT, styled, to_png
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import replacing, write_json, write_text
from orthoreg_jax.training.modes import MODES

RESULTS = pathlib.Path(__file__).parent / "results"
STRENGTHS = (0.1, 1.0, 10.0, 100.0)


@styled
def draw(trials: list[dict[str, Any]]) -> Figure:
    """Left: accuracies over lambda, without the penalty as lines. Right: curves over alpha."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plain, *others = trials
    strengths = [trial["strength"] for trial in others]
    for measure, title, colour in (
        ("single", "Single-task", "#0072B2"),
        ("Abs", "Added", "#D55E00"),
    ):
        means = np.array([trial[measure] for trial in others])
        spread = np.array([trial[f"{measure} sd"] or 0.0 for trial in others])
        left.plot(strengths, means, "o-", color=colour, label=title)
        left.fill_between(strengths, means - spread, means + spread, color=colour, alpha=0.2)
        left.axhline(plain[measure], color=colour, linestyle="--", linewidth=1.2)
    left.set(xscale="log", xlabel="λ", ylabel="Test accuracy, %", title="Dashed: without penalty")
    left.legend()
    right.plot(ALPHAS, plain["curve"], color=SOFT, linestyle="--", label="0")
    for place, trial in enumerate(others):
        colour = colormaps["viridis"](place / max(1, len(others)))
        right.plot(ALPHAS, trial["curve"], color=colour, label=f"{trial['strength']:g}")
    right.set(xlabel="α", ylabel="Validation accuracy, %", title="θ₀ + α Σ τ, mean over tasks")
    right.legend(title="λ")
    return figure


def main() -> None:
    """Runs the trials; writes table and figure."""
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--mode", default="full", choices=list(MODES))
    made.add_argument("--learning_rate", type=float, required=True)
    made.add_argument("--strengths", nargs="+", type=float, default=STRENGTHS)
    arguments = made.parse_args()
    trials, mode, rate = Trials(arguments), arguments.mode, arguments.learning_rate
    found = [trials.run(mode, rate, 0.0)]
    found += [trials.run(mode + ORTHOREG, rate, strength) for strength in arguments.strengths]
    rows = [[f"{trial['strength']:g}", *cells(trial)] for trial in found]
    name = f"strengths_{mode}"
    text = "\n".join(
        [
            f"# λ of `{mode}` at learning rate {rate:g}\n",
            f"    python {' '.join(sys.argv)}\n",
            "In per cent, on test but for the first; ±: standard deviation over seeds.\n",
            markdown_rows(("λ", *MEASURES), rows, left=0) + "\n",
            f"![over lambda and alpha]({name}.png)\n",
        ]
    )
    write_text(RESULTS / f"{name}.md", text)
    write_json(RESULTS / f"{name}.json", found)
    with replacing(RESULTS / f"{name}.png") as scratch:
        scratch.write_bytes(to_png(draw(found)))
    print(text)


if __name__ == "__main__":
    main()
