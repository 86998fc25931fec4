r"""OrthoReg beside other penalties of fine-tuning, tauJp and TAK, and together with the better one.

    python experiments/rivals.py --workdir runs/rivals --modes linearized

For each mode and penalty four lambdas are tried with the first seed, and the one with the best
validation Abs wins: mean accuracy of the model with all task vectors added, at its best alpha. The
rival that wins there is then combined with OrthoReg: its lambda stays, OrthoReg's is chosen from
its four. What was chosen is fine-tuned with every seed. Steps, batches and learning rate are the
same for all; tauJp sees other tasks' images beside them.

Every trial is a run folder in WORKDIR, and its numbers are kept there in trials.json, so that a
cut-off comparison goes on where it was. After each trial experiments/results/rivals.md is written
anew, where what is not measured yet is marked so, and rivals.json beside it, a copy of trials.json
with which a comparison goes on in another WORKDIR.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from trials import ALPHAS, MEASURES, NEGATION, Trials, cells, parser

from orthoreg_jax.config import PLUS, load_config
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, write_json, write_text
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.penalties import PENALTIES

RESULTS = pathlib.Path(__file__).parent / "results"
# At lambda near 0 tauJp's E ||J tau||^2 ends near 100, TAK's form near 60, the loss near 0.1.
STRENGTHS = {
    "orthoreg": (0.01, 0.1, 1.0, 10.0),
    "taujp": (0.001, 0.01, 0.1, 1.0),
    "tak": (0.001, 0.01, 0.1, 1.0),
}
# Of a two-sided 95 % t interval, by the number of seeds.
QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
# Vectors that leave other tasks alone are short: their best alphas lie beyond the other searches'.
LONGER = (*ALPHAS, 2.0, 2.8, 4.0, 5.6, 8.0)
SHOWN = ("single", "Abs", "Norm", "alpha", *NEGATION)
MISSING = "not yet"
Found = dict[str, Any]  # a trial's facts


class Comparison:
    """All trials: those that are kept, and the running of others."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Reads what is kept."""
        self._trials, self._arguments = Trials(arguments), arguments
        self._path = arguments.workdir / "trials.json"
        self._kept: dict[str, Found] = read_json(self._path) if self._path.is_file() else {}
        self._rate = load_config(arguments.config).training.learning_rate

    def get(self, method: str, strengths: Sequence[float], final: bool) -> Found | None:
        """A trial that is kept, or None."""
        return self._kept.get(self._name(method, strengths, final))

    def run(self, method: str, strengths: Sequence[float], final: bool = False) -> Found:
        """A trial, run unless it is kept; `final`: with all seeds, and negation."""
        name = self._name(method, strengths, final)
        if name not in self._kept:
            *first, last = strengths or (0.0,)
            names = method.split(PLUS)[1:]
            options = [
                f"{PENALTIES[each].options}.strength={strength}"
                for each, strength in zip(names, first, strict=False)
            ] + [f"evaluation.alphas={','.join(map(str, LONGER))}"]
            more = "".join(f"-{each}{value:g}" for each, value in zip(names, first, strict=False))
            self._kept[name] = self._trials.run(
                method, self._rate, last, options, more, seeds=self._seeds(final), negate=final
            )
            write_json(self._path, self._kept)
            write_json(RESULTS / "rivals.json", self._kept)
            write_tables(self, self._arguments)
        return self._kept[name]

    def _seeds(self, final: bool) -> list[int]:
        seeds: list[int] = self._arguments.seeds
        return seeds if final else seeds[:1]

    def _name(self, method: str, strengths: Sequence[float], final: bool) -> str:
        seeds = ", ".join(map(str, self._seeds(final)))
        return f"{method}, lambda {lambdas(strengths)}, seeds {seeds}" + ", negated" * final

    def candidates(self, mode: str, name: str) -> list[tuple[str, tuple[float, ...]]]:
        """Method and strengths of a row's candidates; none before what they depend on is known."""
        if name == "none":
            return [(mode, ())]
        if name != "both":
            return [(f"{mode}{PLUS}{name}", (value,)) for value in STRENGTHS[name]]
        rivals = [self.chosen(mode, rival) for rival in ("taujp", "tak")]
        known = [each for each in rivals if each is not None]
        if len(known) < len(rivals):
            return []
        rival, (strength,) = max(known, key=lambda each: self._score(each) or 0.0)
        method = rival.replace(PLUS, f"{PLUS}orthoreg{PLUS}")
        return [(method, (value, strength)) for value in STRENGTHS["orthoreg"]]

    def chosen(self, mode: str, name: str) -> tuple[str, tuple[float, ...]] | None:
        """The candidate with the best validation Abs; None before all of them are measured."""
        candidates = self.candidates(mode, name)
        scores = [self._score(each) for each in candidates]
        known = [score for score in scores if score is not None]
        if not scores or len(known) < len(scores):
            return None
        return candidates[int(np.argmax(known))]

    def _score(self, candidate: tuple[str, tuple[float, ...]]) -> float | None:
        found = self.get(*candidate, False)
        return None if found is None else found["val Abs"]


ROWS = ("none", *STRENGTHS, "both")


def write_tables(comparison: Comparison, arguments: argparse.Namespace) -> None:
    """Writes all that is known."""
    parts = [
        "# OrthoReg and other penalties of fine-tuning\n",
        f"    python {' '.join(sys.argv)}\n",
    ]
    parts.append(" ".join(__doc__.split("\n\n")[2].split()) + "\n")
    seeds = ", ".join(map(str, arguments.seeds))
    for mode in arguments.modes:
        rows, finals = [], {}
        for name in ROWS:
            chosen = comparison.chosen(mode, name)
            final = chosen and comparison.get(*chosen, True)
            label = chosen[0] if chosen else f"{mode}{PLUS}{name}"
            strengths = lambdas(chosen[1]) if chosen else MISSING
            rows.append(
                [label, strengths, *(cells(final, SHOWN) if final else [MISSING] * len(SHOWN))]
            )
            if final:
                finals[name] = final
        tried = [
            [method, lambdas(strengths), *cells(found, MEASURES)]
            for name in ROWS
            for method, strengths in comparison.candidates(mode, name)
            if (found := comparison.get(method, strengths, False))
        ]
        changes = difference_rows(finals)
        parts += [
            f"## `{mode}`\n",
            f"Test, per cent; ±: standard deviation over seeds {seeds}. "
            "target, control: negation at 95 % of control; a lower target is better.\n",
            markdown_rows(("method", "λ", *SHOWN), rows) + "\n",
        ]
        if changes:
            parts += [
                "Points to no penalty, seed by seed: mean ± standard deviation over seeds.\n",
                markdown_rows(("method", "single", "Abs", "target"), changes) + "\n",
                in_words(finals) + "\n",
            ]
        parts += [
            f"Candidates, seed {arguments.seeds[0]}, of which the best on validation is above:\n",
            markdown_rows(("method", "λ", *MEASURES), tried) + "\n",
        ]
    write_text(RESULTS / "rivals.md", "\n".join(parts))


def lambdas(strengths: Sequence[float]) -> str:
    """As "0.1 / 0.01"; "0" without a penalty."""
    return " / ".join(f"{value:g}" for value in strengths) or "0"


def differences(final: Found, plain: Found, measure: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds of what a method changes."""
    pairs = zip(final[f"{measure} by seed"], plain[f"{measure} by seed"], strict=True)
    changes = [after - before for after, before in pairs]
    return statistics.fmean(changes), statistics.stdev(changes)


def difference_rows(finals: dict[str, Found]) -> list[list[str]]:
    """A row for each method that can be compared."""
    if "none" not in finals:
        return []
    rows = []
    for name, final in finals.items():
        if name != "none":
            numbers = [differences(final, finals["none"], m) for m in ("single", "Abs", "target")]
            rows.append([final["method"], *(f"{mean:+.2f} ± {sd:.2f}" for mean, sd in numbers)])
    return rows


def in_words(finals: dict[str, Found]) -> str:
    """Which penalties change the added model by more than seeds do."""
    said = []
    for name, final in finals.items():
        if name == "none":
            continue
        mean, deviation = differences(final, finals["none"], "Abs")
        count = len(final["seeds"])
        half = QUANTILES[count] * deviation / math.sqrt(count)
        verdict = "not told apart from" if abs(mean) <= half else "above" if mean > 0 else "below"
        said.append(
            f"`{final['method']}` is {verdict} no penalty in Abs ({mean:+.2f}, 95 % interval over "
            f"seeds ±{half:.2f})"
        )
    best = max(finals.values(), key=lambda each: each["Abs"])
    return "; ".join(said) + f". The highest Abs is that of `{best['method']}`."


def main() -> None:
    """Compares mode after mode."""
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--modes", nargs="+", default=["linearized"], choices=list(MODES))
    made.set_defaults(seeds=[0, 1, 2])
    arguments = made.parse_args()
    if len(arguments.seeds) not in QUANTILES:
        made.error(f"--seeds: give {min(QUANTILES)} to {max(QUANTILES)} of them")
    comparison = Comparison(arguments)
    for mode in arguments.modes:
        for name in ROWS:
            for candidate in comparison.candidates(mode, name):
                comparison.run(*candidate)
        for name in ROWS:
            chosen = comparison.chosen(mode, name)
            assert chosen is not None
            comparison.run(*chosen, final=True)
    write_tables(comparison, arguments)
    print((RESULTS / "rivals.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
