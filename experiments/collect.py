r"""Turns a finished run into a page of results, next to the paper's.

    python experiments/collect.py --run runs/embedded_full --command "orthoreg run ..."

Writes experiments/results/NAME.md, NAME.json and the figures in NAME/, where NAME is the run
folder's name. The JSON is results.json without the parts that only figures need.
"""

from __future__ import annotations

import argparse
import copy
import functools
import pathlib
import shutil
from typing import Literal

from published import ADDITION, MODELS, NEGATION

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.evaluation.results_file import read_results
from orthoreg_jax.reporting.findings import describe_findings
from orthoreg_jax.reporting.report import TABLES
from orthoreg_jax.reporting.summary import (
    DEFAULT_SHARE,
    MethodRuns,
    control_mean,
    control_name,
    find_comparison,
    group_methods,
    target_mean,
    zero_shot_mean,
)
from orthoreg_jax.reporting.tables import NONE, Table, format_markdown, percent, points
from orthoreg_jax.storage import write_json, write_text

RESULTS = pathlib.Path(__file__).parent / "results"
FIGURES = ("addition", "negation", "disentanglement", "cosines", "angles", "singular_values")


def _added(key: Literal["absolute", "normalised"], run: Run) -> float:
    found = run["addition"][key]
    assert found is not None  # a page has several tasks, and none has a single accuracy of 0
    return found


def addition_table(results: Results) -> Table:
    """Table of addition: Abs / Norm, ours and the paper's."""
    zero_shot = f"{percent(zero_shot_mean(results))} / {NONE}"
    rows = [("Zero-shot", zero_shot, *(f"{a:.2f} / {NONE}" for a, _ in ADDITION["zero-shot"]))]
    for method in group_methods(results):
        here = [
            percent(method.over_seeds(functools.partial(_added, key)).mean)
            for key in ("absolute", "normalised")
        ]
        there = [
            f"{a:.2f} / {NONE if norm is None else f'{norm:.2f}'}" for a, norm in published(method)
        ]
        rows.append((method.label, " / ".join(here), *there))
    note = "Abs / Norm in per cent. The embedded tasks are not the paper's: compare rows only."
    return Table("Addition, beside the paper", header(), tuple(rows), (note,))


def negation_table(results: Results) -> Table:
    """Table of negation: target / control, ours and the paper's."""
    control = results["zero_shot"]["test"][control_name(results)]
    zero_shot = f"{percent(zero_shot_mean(results))} / {percent(control)}"
    there = [f"{target:.2f} / {kept:.2f}" for target, kept in NEGATION["zero-shot"]]
    rows = [("Zero-shot", zero_shot, *there)]
    for method in group_methods(results):
        here = [
            percent(method.over_seeds(functools.partial(of, share=DEFAULT_SHARE)).mean)
            for of in (target_mean, control_mean)
        ]
        there = [f"{target:.2f} / {kept:.2f}" for target, kept in NEGATION[method.name]]
        rows.append((method.label, " / ".join(here), *there))
    note = "Accuracy on the forgotten / on the control task, keeping 95 % of the latter."
    return Table("Negation, beside the paper", header(), tuple(rows), (note,))


def gain_table(results: Results) -> Table:
    """Table of the penalty's effects, ours and the paper's."""
    rows = []
    for method in group_methods(results):
        plain = method.name.removesuffix(ORTHOREG)
        added = find_comparison(results, plain, method.name, "added")
        negated = find_comparison(results, plain, method.name, f"negated/{DEFAULT_SHARE}")
        if added is None or negated is None:
            continue
        for name, here, table in (("Abs", added, ADDITION), ("target", negated, NEGATION)):
            there = [
                points((with_penalty[0] - without[0]) / 100)
                for with_penalty, without in zip(table[method.name], table[plain], strict=True)
            ]
            interval = f"[{points(here['low'])}, {points(here['high'])}]"
            rows.append((method.label, name, f"{points(here['difference'])} {interval}", *there))
    note = (
        "Points with the penalty minus without. Abs: higher is better; target, of negation at "
        "95 % of control: lower is better. In brackets a 95 % bootstrap interval over test images."
    )
    head = ("Method", "Measure", *header()[1:])
    return Table("What the penalty changes, beside the paper", head, tuple(rows), (note,), left=2)


def header() -> tuple[str, ...]:
    """Columns of tables that compare with the paper."""
    return ("Method", "Embedded, here", *(f"{model}, paper" for model in MODELS))


def published(method: MethodRuns) -> tuple[tuple[float, float | None], ...]:
    """The paper's addition results of a method."""
    return ADDITION[method.name]


def slim(results: Results) -> Results:
    """Results without the parts that only figures need."""
    smaller = copy.deepcopy(results)
    smaller["weight_angles"] = {}
    for run in smaller["runs"]:
        run["geometry"]["singular_values"] = {}
        run["geometry"]["angles"] = {}
    return smaller


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--command", required=True, help="what made the run")
    options = parser.parse_args()
    results, name = read_results(options.run), options.run.name
    tables = [addition_table(results), negation_table(results), gain_table(results)]
    tables += [table for make in TABLES if (table := make(results)) is not None]
    figures = [figure for figure in FIGURES if (options.run / "plots" / f"{figure}.png").is_file()]
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    for figure in figures:
        shutil.copy(options.run / "plots" / f"{figure}.png", RESULTS / name / f"{figure}.png")
    parts = [
        f"# {name}\n",
        f"Made by\n\n    {options.command}\n    python experiments/collect.py --run {options.run}"
        ' --command "..."\n',
        "The tables are those of the run's report, those beside the paper first.\n",
        *(f"{paragraph}\n" for paragraph in describe_findings(results)),
        *map(format_markdown, tables),
        "## Figures\n",
        *(f"![{figure}]({name}/{figure}.png)\n" for figure in figures),
    ]
    write_text(RESULTS / f"{name}.md", "\n".join(parts))
    write_json(RESULTS / f"{name}.json", slim(results))
    print(RESULTS / f"{name}.md")


if __name__ == "__main__":
    main()
