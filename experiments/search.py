r"""Compares methods, each at the lambda that is best on validation.

    python experiments/search.py rivals --workdir runs/rivals
    python experiments/search.py placement --workdir runs/placement --learning_rate 3e-3

A row has candidates (`comparisons.py`). Each is tried with the first seed, and the one with the
best validation Abs wins: the mean accuracy of the model with all task vectors added, at its best
alpha. The winner is fine-tuned with every seed. Steps, batches and learning rate are the same for
all; only tauJp also sees images of the other tasks.

Every trial has a run folder in WORKDIR, and trials.json there stores its numbers, so an interrupted
comparison resumes where it stopped. Finally, experiments/results/NAME.md and NAME.json are
written.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import statistics
import sys

from comparisons import COMPARISONS, Candidate, Group
from trials import ALPHAS, MEASURES, NEGATION, Found, Trials, cells, parser

from orthoreg_jax.config import load_config, split_method
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, write_json, write_text
from orthoreg_jax.training.penalties import PENALTIES

RESULTS = pathlib.Path(__file__).parent / "results"
# Quantile of a two-sided 95 % t interval, by number of seeds.
QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
# Vectors that affect other tasks little are short, so their best alphas exceed the usual ones.
LONGER = (*ALPHAS, 2.0, 2.8, 4.0, 5.6, 8.0)
SHOWN = ("single", "Abs", "Norm", "alpha", *NEGATION)
CHANGES = ("single", "Abs", "target")


class Search:
    """Runs candidates and stores their results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Reads the stored results."""
        self._trials, self.seeds = Trials(arguments), list[int](arguments.seeds)
        self._path = arguments.workdir / "trials.json"
        self.kept: dict[str, Found] = read_json(self._path) if self._path.is_file() else {}
        configured = load_config(arguments.config).training.learning_rate
        self._rate = arguments.learning_rate or configured

    def run(self, candidate: Candidate, final: bool = False) -> Found:
        """Runs a trial, unless it is stored; `final`: with all seeds, and negation."""
        seeds = self.seeds if final else self.seeds[:1]
        setting = ", ".join([candidate.method, f"lambda {candidate.lambdas}", *candidate.options])
        name = f"{setting}, seeds {', '.join(map(str, seeds))}" + ", negated" * final
        if name not in self.kept:
            penalties = split_method(candidate.method)[1]
            values = dict(zip(penalties, candidate.strengths, strict=True))
            options = [
                *(f"{PENALTIES[each].options}.strength={value}" for each, value in values.items()),
                f"evaluation.alphas={','.join(map(str, LONGER))}",
                *candidate.options,
            ]
            folder = "-".join(
                [
                    candidate.method,
                    *(f"{value:g}" for value in values.values()),
                    *(option.replace("=", "-") for option in candidate.options),
                ]
            )
            self.kept[name] = self._trials.run(
                candidate.method, self._rate, options, folder, seeds=seeds, negate=final
            )
            write_json(self._path, self.kept)
        return self.kept[name]

    def compare(self, group: Group) -> tuple[dict[str, tuple[Candidate, Found]], list[list[str]]]:
        """The winner of each row with its final trial, and a line for each candidate."""
        chosen: dict[str, tuple[Candidate, Found]] = {}
        tried: list[list[str]] = []
        for name, candidates in group.rows.items():
            found = [(each, self.run(each)) for each in candidates(chosen)]
            chosen[name] = max(found, key=lambda pair: pair[1]["val Abs"])
            for each, trial in found:
                tried.append([group.name, each.method, each.lambdas, *cells(trial, MEASURES)])
        winners = {name: (each, self.run(each, final=True)) for name, (each, _) in chosen.items()}
        return winners, tried


def differences(final: Found, plain: Found, measure: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds of the change from `plain` to `final`."""
    pairs = zip(final[f"{measure} by seed"], plain[f"{measure} by seed"], strict=True)
    changes = [after - before for after, before in pairs]
    return statistics.fmean(changes), statistics.stdev(changes)


def change_cells(final: Found, plain: Found) -> list[str]:
    """Changes from the baseline, and whether that of Abs is within noise."""
    found = [differences(final, plain, measure) for measure in CHANGES]
    mean, deviation = found[CHANGES.index("Abs")]
    count = len(final["seeds"])
    half = QUANTILES[count] * deviation / math.sqrt(count)
    verdict = "within noise" if abs(mean) <= half else "higher" if mean > 0 else "lower"
    return [*(f"{mean:+.2f} ± {sd:.2f}" for mean, sd in found), f"{verdict} (±{half:.2f})"]


def page(name: str, search: Search, groups: list[Group]) -> str:
    """Runs what is missing and returns the page with all results."""
    rows, changes, tried = [], [], []
    for group in groups:
        winners, lines = search.compare(group)
        tried += lines
        (_, plain), *_ = winners.values()
        for row, (candidate, final) in winners.items():
            label = [group.name, candidate.method, candidate.lambdas]
            rows.append([*label, *cells(final, SHOWN)])
            if final is not plain:
                published = ""
                if group.published and row == "orthoreg":
                    before, after = group.published
                    published = f"{before:.2f}, then {after:.2f} ({after - before:+.2f})"
                changes.append([*label, *change_cells(final, plain), published])
    seeds = ", ".join(map(str, search.seeds))
    head = ("group", "method", "λ")
    return "\n".join(
        [
            f"# {COMPARISONS[name].title}\n",
            f"    python {' '.join(sys.argv)}\n",
            " ".join(str(__doc__).split("\n\n")[2].split()) + "\n",
            f"Test accuracy in per cent; ±: standard deviation over seeds {seeds}. target, "
            "control: negation at 95 % of control; a lower target is better.\n",
            markdown_rows((*head, *SHOWN), rows) + "\n",
            "Change from the first method of the group, in points, seed by seed; last but one: "
            "whether the change of Abs exceeds the 95 % interval over seeds.\n",
            markdown_rows((*head, *CHANGES, "Abs", "Abs in the paper"), changes) + "\n",
            f"Candidates, with seed {search.seeds[0]}:\n",
            markdown_rows((*head, *MEASURES), tried) + "\n",
        ]
    )


def main() -> None:
    """Compares group after group."""
    made = parser(str(__doc__).splitlines()[0])
    made.add_argument("name", choices=list(COMPARISONS))
    made.add_argument("--groups", nargs="+", help="modes, or placements; default: the page's own")
    made.add_argument("--learning_rate", type=float, help="default: the config's")
    made.add_argument("--results", type=pathlib.Path, default=RESULTS)
    made.set_defaults(seeds=[0, 1, 2])
    arguments = made.parse_args()
    if len(arguments.seeds) not in QUANTILES:
        made.error(f"--seeds: give {min(QUANTILES)} to {max(QUANTILES)} of them")
    comparison, search = COMPARISONS[arguments.name], Search(arguments)
    groups = [comparison.group(name) for name in arguments.groups or comparison.groups]
    text = page(arguments.name, search, groups)
    write_text(arguments.results / f"{arguments.name}.md", text)
    write_json(arguments.results / f"{arguments.name}.json", search.kept)
    print(text)


if __name__ == "__main__":
    main()
