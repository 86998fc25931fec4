r"""Which kernels get a LoRA adapter (the paper's table 6), with and without the penalty.

    python experiments/placement.py --workdir runs/placement --learning_rate 1e-3 --strength 1 \
        --seeds 0 1 2

Writes experiments/results/placement.md and .json, the paper's numbers for ViT-B/16 beside ours.
"""

from __future__ import annotations

import pathlib
import sys

from published import PLACEMENT
from trials import Trials, cells, parser

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import write_json, write_text

RESULTS = pathlib.Path(__file__).parent / "results"


def main() -> None:
    """Runs the trials and writes the table."""
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--learning_rate", type=float, required=True)
    made.add_argument("--strength", type=float, required=True)
    arguments = made.parse_args()
    trials, rate, found, rows = Trials(arguments), arguments.learning_rate, {}, []
    for placement, (without, with_penalty) in PLACEMENT.items():
        place = ([f"lora.placement={placement}"], f"-{placement}")
        pair = [
            trials.run("lora", rate, 0.0, *place),
            trials.run("lora" + ORTHOREG, rate, arguments.strength, *place),
        ]
        found[placement] = pair
        texts = [cells(trial, ("single", "Abs", "Norm")) for trial in pair]
        gain = f"{pair[1]['Abs'] - pair[0]['Abs']:+.2f}"
        published = [f"{without:.2f}", f"{with_penalty:.2f}", f"{with_penalty - without:+.2f}"]
        rows.append([placement, *texts[0], *texts[1], gain, *published])
    header = [
        *("placement", "single", "Abs", "Norm"),
        *("+ OrthoReg: single", "Abs", "Norm", "gain in Abs"),
        *("paper, B/16: Abs", "+ OrthoReg", "gain"),
    ]
    text = "\n".join(
        [
            "# Where LoRA's adapters sit\n",
            f"    python {' '.join(sys.argv)}\n",
            "Test, per cent; ±: standard deviation over seeds.\n",
            markdown_rows(header, rows) + "\n",
        ]
    )
    write_text(RESULTS / "placement.md", text)
    write_json(RESULTS / "placement.json", found)
    print(text)


if __name__ == "__main__":
    main()
