"""Turns the trials of run.py into regime.md, regime.json and the plot of where OrthoReg begins.

    python experiments/regime/page.py --workdir runs/regime

Computes nothing on a device: every number is read from the trials' files.
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from kept import COURSE, RATES, SEEDS, STEPS
from matplotlib.figure import Figure
from rows import Row, Trials

from orthoreg_jax.arithmetic.matrices import select_matrices
from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.config import default_config
from orthoreg_jax.evaluation.bootstrap import Interval
from orthoreg_jax.reporting.style import styled, to_png
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import replacing, write_json, write_text
from orthoreg_jax.training.modes import make_mode

RESULTS = pathlib.Path(__file__).parents[1] / "results"
SHARES = ("0.95", "0.9", "0.8")
LABELS = {mode: make_mode(mode, default_config()).label for mode in RATES}  # those with trials
COLOURS = {1.0: "#D55E00", 10.0: "#009E73"}


@functools.cache
def side() -> float:
    """Larger side of a matrix, averaged over the embedded image tower.

    Entries of an orthonormal update have the size 1 / sqrt(side).
    """
    tower = {"visual": load_checkpoint("embedded").params["visual"]}
    matrices = select_matrices(tower, rules_for_part(tower, VISUAL_MATRICES)).values()
    sides = [max(each.shape[1:]) for each in matrices for _ in range(each.shape[0])]
    return statistics.fmean(sides)


def points(interval: Interval) -> str:
    """Format "+1.23 [+0.45, +2.01]", in points; bold if the interval does not contain 0."""
    mean, low, high = (100 * value for value in interval)
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def standing(trials: Trials) -> str:
    """Plain full fine-tuning over rates, steps and task sets, on which the regime was chosen."""
    rows = []
    for steps in STEPS:
        for rate in RATES["full"]:
            row = trials.row("full", rate, steps, seeds=(0,))
            if row is None:
                continue
            facts = row.facts[0]
            val = statistics.fmean(facts["single"]["val"].values())
            norms = [
                f"{100 * facts['addition'][name]['absolute']:.2f} / "
                f"{100 * facts['addition'][name]['normalised']:.2f}"
                for name in trials.sets
            ]
            mark = "**" if (steps, rate) == (trials.steps, trials.rate("full")) else ""
            rows.append([f"{mark}{steps}{mark}", f"{rate:g}", f"{100 * val:.2f}", *norms])
    header = [
        "steps",
        "rate",
        "single, validation",
        *(f"{n} tasks: Abs / Norm" for n in trials.sets),
    ]
    return markdown_rows(header, rows, left=0)


def eight_rows(trials: Trials) -> tuple[str, str, list[dict[str, Any]]]:
    """The table of all modes, the table of gains, and the data of both."""
    rows, gains, data = [], [], []
    for mode, label in LABELS.items():
        rate = trials.rate(mode)
        plain = trials.row(mode, rate, trials.steps)
        if plain is None:
            rows.append([label, "", "not measured yet", *[""] * 12])
            continue
        penalised = trials.with_penalty(mode)
        chosen: dict[str, tuple[float, Row]] = {"": (0.0, plain)}
        if penalised:
            best = max(
                penalised,
                key=lambda s: penalised[s].mean(lambda f: trials.added(f, "val_absolute")),
            )
            forget = min(penalised, key=lambda s: penalised[s].mean(_val_target(trials)))
            chosen["addition"] = (best, penalised[best])
            chosen["negation"] = (forget, penalised[forget])
        for purpose, (strength, row) in chosen.items():
            if purpose == "negation" and strength == chosen["addition"][0]:
                continue
            same = len(chosen) > 1 and chosen["addition"][0] == chosen["negation"][0]
            by = "" if not purpose else " (λ by both)" if same else f" (λ by {purpose})"
            name = label if not purpose else f"+ OrthoReg{by}"
            flat = [
                statistics.fmean(trials.added(f, "flat")[end] for f in row.facts) for end in (0, 1)
            ]
            moved = rate * trials.steps / 2 * math.sqrt(side())
            rows.append(
                [
                    name,
                    f"{strength:g}" if strength else "",
                    row.cell(trials.single),
                    row.cell(trials.added),
                    row.cell(lambda f: trials.added(f, "normalised")),
                    row.cell(trials.closed),
                    f"{row.mean(lambda f: trials.added(f, 'alpha')):.3g}",
                    f"{flat[0]:.2g} to {flat[1]:.2g}",
                    row.cell(lambda f: trials.added(f, "at_one")["absolute"]),
                    *(
                        f"{row.cell(trials.negated(share))} / "
                        f"{100 * row.mean(trials.negated(share, 'control')):.1f}"
                        for share in SHARES
                    ),
                    row.cell(lambda f: f["penalty_share"], 1),
                    f"{row.mean(lambda f: statistics.fmean(f['norms'].values())):.3g}",
                    row.cell(lambda f: f["cosine"], 3, 1.0),
                ]
            )
            data.append(
                {
                    "method": mode + "+orthoreg" * (strength > 0),
                    "strength_chosen_by": purpose or None,
                    "tasks": trials.tasks,
                    "seeds": list(SEEDS),
                    "steps": trials.steps,
                    "learning_rate": rate,
                    "sum_of_rates_over_entry": moved,
                    "strength": strength,
                    "single": row.mean(trials.single),
                    "absolute": row.mean(trials.added),
                    "normalised": row.mean(lambda f: trials.added(f, "normalised")),
                    "targets": {s: row.mean(trials.negated(s)) for s in SHARES},
                    "controls": {s: row.mean(trials.negated(s, "control")) for s in SHARES},
                    "penalty_share": row.mean(lambda f: f["penalty_share"]),
                }
            )
            if purpose:
                kinds = ["single", f"{trials.set}/added", *(f"negated/{s}" for s in SHARES)]
                found = [trials.gain(row, plain, kind) for kind in kinds]
                gains.append([f"{label} {name}", f"{strength:g}", *map(points, found)])
                data[-1]["gains"] = {
                    kind.rpartition("/")[2] if kind == kinds[1] else kind: list(interval)
                    for kind, interval in zip(kinds, found, strict=True)
                }
    header = [
        *("Method", "λ", "Single-task", "Abs", "Norm", "Gap closed", "α", "Flat α", "Abs, α = 1"),
        *(f"Negation {100 * float(s):g} %: target / control" for s in SHARES),
        *("Penalty left, %", "‖τ‖", "mean cosine of τ"),
    ]
    differences = [
        "Method",
        "λ",
        "Single-task",
        "Abs",
        *(f"Target {100 * float(s):g} %" for s in SHARES),
    ]
    return (
        markdown_rows(header, rows, left=1),
        markdown_rows(differences, gains, left=1),
        data,
    )


def _val_target(trials: Trials) -> Any:
    return lambda facts: statistics.fmean(
        facts["negation"][task]["shares"]["0.95"]["target_val"] for task in trials.tasks
    )


def every_strength(trials: Trials) -> str:
    """Results of all lambdas in all modes, and in the paper's form."""
    rows = []
    for mode, label in LABELS.items():
        plain = trials.row(mode, trials.rate(mode), trials.steps)
        if plain is None:
            continue
        for form in ("released", "paper") if mode == "full" else ("released",):
            for strength, row in trials.with_penalty(mode, form).items():
                rows.append(
                    [
                        label,
                        form,
                        f"{strength:g}",
                        f"{100 * row.mean(lambda f: trials.added(f, 'val_absolute')):.2f}",
                        row.cell(trials.single),
                        row.cell(trials.added),
                        points(trials.gain(row, plain, f"{trials.set}/added")),
                        row.cell(trials.negated("0.95")),
                        points(trials.gain(row, plain, "negated/0.95")),
                        row.cell(lambda f: f["penalty_share"], 1),
                    ]
                )
    header = [
        *("Mode", "Form", "λ", "Abs, validation", "Single-task", "Abs", "Gain in Abs"),
        *("Target 95 %", "Change of target", "Penalty left, %"),
    ]
    return markdown_rows(header, rows, left=2)


def course(trials: Trials) -> tuple[str, list[dict[str, Any]]]:
    """Gains of full fine-tuning over steps, lambda and number of tasks."""
    rows, data, rate = [], [], trials.rate("full")
    for steps in COURSE:
        for strength in COLOURS:
            pair = trials.pair(rate, steps, strength)
            if pair is None:
                continue
            plain, row = pair
            added = {
                name: trials.gain(row, plain, f"{name}/added", tasks)
                for name, tasks in trials.sets.items()
            }
            target = trials.gain(row, plain, "negated/0.95", trials.sets["13"])
            left = row.mean(lambda f: f["penalty_share"])
            rows.append(
                [
                    f"{steps}",
                    f"{rate * steps / 2 * math.sqrt(side()):.1f}",
                    f"{strength:g}",
                    f"{len(row.facts)}",
                    f"{100 * left:.1f}",
                    *map(points, added.values()),
                    points(target),
                ]
            )
            data.append(
                {
                    "steps": steps,
                    "strength": strength,
                    "penalty_share": left,
                    "added": {name: list(interval) for name, interval in added.items()},
                    "negated": list(target),
                }
            )
    header = [
        *("Steps", "Σ rates × √side", "λ", "Seeds", "Penalty left, %"),
        *(f"Abs, {name} tasks" for name in trials.sets),
        "Target 95 %, 13 tasks",
    ]
    return markdown_rows(header, rows, left=0), data


@styled
def draw(data: list[dict[str, Any]], sets: Sequence[str]) -> Figure:
    """Plots gains over steps: a line for each lambda, a panel for each set and for negation."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(sets) + 1)
    titles = [f"Abs, {name} tasks" for name in sets] + ["Negation target, 95 % of control"]
    for panel, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        axes.axhline(0, color="#888888", linewidth=1)
        for strength, colour in COLOURS.items():
            own = [each for each in data if each["strength"] == strength]
            steps = [each["steps"] for each in own]
            found = [
                each["added"][sets[panel]] if panel < len(sets) else each["negated"] for each in own
            ]
            mean, low, high = 100 * np.array(found).reshape(-1, 3).T
            axes.plot(steps, mean, "o-", color=colour, label=f"λ = {strength:g}")
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xscale="log", title=title, xlabel="Steps")
        axes.set_xticks(COURSE, [str(steps) for steps in COURSE])
        axes.minorticks_off()
    panels[0].set_ylabel("OrthoReg minus none, points")
    panels[0].legend()
    return figure


def main() -> None:
    """Writes the page, its data and its plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--base", default="embedded", help="the folder of its trials in WORKDIR")
    parser.add_argument(
        "--words", type=pathlib.Path, default=pathlib.Path(__file__).with_name("words.md")
    )
    arguments = parser.parse_args()
    trials = Trials(arguments.workdir / arguments.base)
    table, gains, rows = eight_rows(trials)
    begins, data = course(trials)
    first = trials.row("full", trials.rate("full"), trials.steps, seeds=(0,))
    if first is None:
        raise SystemExit(f"{arguments.workdir}: has no trial of full fine-tuning; run run.py first")
    any_of_them = first.facts[0]
    device, zero = any_of_them["device"], any_of_them["zero_shot"]["test"]
    words = arguments.words.read_text(encoding="utf-8") if arguments.words.is_file() else ""
    zero_shot = 100 * statistics.fmean(zero[task] for task in trials.tasks)
    text = "\n".join(
        [
            "# The regime in which OrthoReg can act\n",
            "    python experiments/regime/run.py --workdir runs/regime",
            "    python experiments/regime/page.py --workdir runs/regime --base "
            f"{arguments.base}\n",
            f"By the [protocol](regime_protocol.md), on one {device}. {trials.set} tasks "
            f"({', '.join(trials.tasks)}), {trials.steps} steps of 32 images, three seeds. "
            f"Zero-shot: {zero_shot:.2f} on the tasks, {100 * zero['concepts']:.2f} on control. "
            "Per cent on test; ±: sample standard deviation over seeds.\n",
            words,
            "## All modes, with and without\n",
            table + "\n",
            "Gap closed: how much of the gap between zero-shot and single-task accuracy addition "
            "closes. Penalty left: Σ ‖G − I‖ at the end, relative to its value without an update. "
            "Flat α: the smallest and the largest α within a point of the best mean validation "
            "accuracy.\n",
            "## Gains, on the same images\n",
            gains + "\n",
            "With the penalty minus without, in points; in brackets the 95 % bootstrap interval "
            "over test images, bold where it excludes 0. A lower target is better.\n",
            "## Where it begins\n",
            "![Gains over steps](regime.png)\n",
            begins + "\n",
            "Σ rates × √side: the sum of the learning rates, about as far as Adam can move an "
            "entry, in units of an entry of an orthonormal update.\n",
            "## Every λ\n",
            every_strength(trials) + "\n",
            "## What the regime was chosen by\n",
            standing(trials) + "\n",
            "Plain full fine-tuning, seed 0; bold: chosen.\n",
        ]
    )
    write_text(RESULTS / "regime.md", text)
    write_json(RESULTS / "regime.json", {"chosen": trials.chosen, "rows": rows, "begins": data})
    if data:
        with replacing(RESULTS / "regime.png") as scratch:
            scratch.write_bytes(to_png(draw(data, [n for n in trials.sets if n != "11"])))
    print(text)


if __name__ == "__main__":
    main()
