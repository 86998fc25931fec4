"""Mergers and options that mergers.py tries, files of its results, and their page and plot."""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from orthoreg_jax.config import default_config, split_method
from orthoreg_jax.evaluation.bootstrap import Interval, bootstrap_interval
from orthoreg_jax.reporting.style import styled, to_png
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, replacing, write_json, write_text
from orthoreg_jax.training.modes import make_mode

RESULTS = pathlib.Path(__file__).parent / "results"
# Values tried of each merger's own parameter, the published default first.
TRIED: dict[str, tuple[dict[str, Any], ...]] = {
    "task_arithmetic": ({},),
    "ties": ({"k": 20}, {"k": 50}),
    "dare": ({"p": 0.9}, {"p": 0.5}),
    "dare_ties": ({"p": 0.9}, {"p": 0.5}),
    "breadcrumbs": ({"beta": 0.85}, {"beta": 0.5}),
    "consensus": ({"lambda_": 0.4}, {"lambda_": 0.2}),
    "pcb": ({"fraction": 0.1}, {"fraction": 0.5}),
    "model_stock": ({},),
    "tsv_m": ({},),
    "iso_c": ({},),
    "iso_cts": ({"common_space_fraction": 0.8}, {"common_space_fraction": 0.5}),
    "wudi": ({},),
    "cart": ({"fraction": 0.12}, {"fraction": 0.32}),
    "dc_merge": ({"fraction": 0.001}, {"fraction": 0.2}),
}
TITLES = {
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "dare": "DARE",
    "dare_ties": "DARE-TIES",
    "breadcrumbs": "Breadcrumbs",
    "consensus": "Consensus TA",
    "pcb": "PCB",
    "model_stock": "Model Stock",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "iso_cts": "Iso-CTS",
    "wudi": "WUDI, closed form",
    "cart": "CART",
    "dc_merge": "DC-Merge",
}
PENALTIES = {"orthoreg": "OrthoReg", "taujp": "τJp", "tak": "TAK", "drift": "drift"}
OTHERS = ("taujp", "tak")  # penalties that know the other tasks


def kept(workdir: pathlib.Path, method: str, seed: int, merger: str) -> pathlib.Path:
    """File of one result; an .npz beside it says which test images were right."""
    return workdir / method / f"seed{seed}" / f"{merger}.json"


class Cell(NamedTuple):
    """Results of one merger with one method, by seed."""

    results: list[dict[str, Any]]
    right: list[dict[str, np.ndarray]]

    def mean(self, key: str) -> float:
        """Over seeds."""
        return statistics.fmean(result[key] for result in self.results)

    def text(self, key: str) -> str:
        """An accuracy: per cent, mean and standard deviation over seeds."""
        values = [100 * result[key] for result in self.results]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.2f}{spread}"

    def own(self) -> str:
        """The merger's own parameter."""
        options = self.results[0]["options"]
        return ", ".join(f"{key.strip('_')} {value:g}" for key, value in options.items())


Cells = Mapping[tuple[str, str], Cell]  # by method and merger


def read_cells(workdir: pathlib.Path, methods: Sequence[str], seeds: Sequence[int]) -> Cells:
    """The results that all seeds have."""
    cells = {}
    for method in methods:
        for name in TRIED:
            paths = [kept(workdir, method, seed, name) for seed in seeds]
            if all(path.is_file() for path in paths):
                right = [dict(np.load(path.with_suffix(".npz"))) for path in paths]
                cells[method, name] = Cell([read_json(path) for path in paths], right)
    return cells


def label(method: str) -> str:
    """A method's name for people."""
    mode, penalties = split_method(method)
    return " + ".join(
        [make_mode(mode, default_config()).label, *(PENALTIES[each] for each in penalties)]
    )


def compare(cell: Cell, other: Cell) -> Interval:
    """Abs of a cell minus that of another, on the same images, with its 95 % interval."""
    differences = {}
    for task in cell.right[0]:
        pairs = zip(cell.right, other.right, strict=True)
        each = [a[task].astype(float) - b[task].astype(float) for a, b in pairs]
        differences[task] = np.mean(each, axis=0)
    return bootstrap_interval(differences)


def difference(interval: Interval) -> str:
    """In points; bold if the interval excludes 0."""
    mean, low, high = (100 * value for value in interval)
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def table(
    cells: Mapping[tuple[str, str], Any], methods: Sequence[str], text: Callable[[Any], str]
) -> str:
    """A row for each merger, a column for each method."""
    rows = [
        [TITLES[name], *(text(cells[m, name]) if (m, name) in cells else "" for m in methods)]
        for name in TRIED
        if any((method, name) in cells for method in methods)
    ]
    return markdown_rows(("Merger", *map(label, methods)), rows)


def gains(cells: Cells, methods: Sequence[str]) -> dict[tuple[str, str], Interval]:
    """By method and merger: what the penalties add to the same mode without any."""
    found = {}
    for method, name in cells:
        plain = (split_method(method)[0], name)
        if method in methods and method != plain[0] and plain in cells:
            found[method, name] = compare(cells[method, name], cells[plain])
    return found


def reading(cells: Cells, methods: Sequence[str]) -> list[str]:
    """Both directions of the table in words, from the numbers."""
    lines = []
    for method in methods:
        own = {name: cells[method, name] for name in TRIED if (method, name) in cells}
        best = max(own, key=lambda name: own[name].mean("absolute"))
        gain = compare(own[best], own["task_arithmetic"])
        at_one = max(own, key=lambda name: own[name].mean("at_one"))
        lines.append(
            f"- **{label(method)}**: {TITLES[best]} is best, {own[best].text('absolute')}; against "
            f"task arithmetic {difference(gain)}. Without a search (α = 1) {TITLES[at_one]} is "
            f"best, {own[at_one].text('at_one')}."
        )
    found = gains(cells, methods)
    for method in methods:
        own_gains = {name: gain for (each, name), gain in found.items() if each == method}
        if own_gains:
            up = [TITLES[name] for name, (_, low, _) in own_gains.items() if low > 0]
            down = [TITLES[name] for name, (_, _, high) in own_gains.items() if high < 0]
            lines.append(
                f"- {label(method)}, against the same mode without a penalty: higher Abs with "
                f"{len(up)} of {len(own_gains)} mergers ({', '.join(up) or 'none'}), lower with "
                f"{len(down)} ({', '.join(down) or 'none'}), within noise with the others."
            )
    method, name = max(cells, key=lambda key: cells[key].mean("absolute"))
    cell = cells[method, name]
    lines.append(
        f"- Best of all: {TITLES[name]} on `{method}`, Abs {cell.text('absolute')}, Norm "
        f"{cell.text('normalised')}."
    )
    return lines


@styled
def draw(cells: Cells, methods: Sequence[str]) -> Figure:
    """A heat map: Abs by merger and method."""
    names = [name for name in TRIED if any((method, name) in cells for method in methods)]
    values = np.array(
        [
            [
                100 * cells[m, n].mean("absolute") if (m, n) in cells else float("nan")
                for m in methods
            ]
            for n in names
        ]
    )
    figure = Figure(figsize=(2.6 + 1.35 * len(methods), 1.2 + 0.36 * len(names)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="viridis", aspect="auto")
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        value = values[row, column]
        colour = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    columns = [label(method).replace(" + ", "\n+ ") for method in methods]
    axes.set_xticks(range(len(methods)), columns, fontsize=9)
    axes.set_yticks(range(len(names)), [TITLES[name] for name in names], fontsize=9)
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(shown, ax=axes, label="Abs: mean test accuracy, %")
    return figure


def _strength(config: Mapping[str, Any], method: str) -> float:
    """Lambda of a method with one penalty."""
    (penalty,) = split_method(method)[1]
    own = f"penalty.{penalty}.strength" if penalty != "orthoreg" else "penalty.strength"
    return float(config[f"per_method.{method}.strength"] or config[own])


def page(arguments: argparse.Namespace, cells: Cells) -> str:
    """The page's text."""
    methods = [m for m in arguments.methods if (m, "task_arithmetic") in cells]
    found = gains(cells, methods)
    penalised = [m for m in methods if any(m == each for each, _ in found)]
    config = read_json(arguments.run / "config.json")
    seeds, tasks = ", ".join(map(str, arguments.seeds)), ", ".join(config["tasks"])
    strengths = [
        f"{label(method)} {_strength(config, method):g}"
        for method in methods
        if len(split_method(method)[1]) == 1
    ]
    own = [
        f"{TITLES[name]} {' or '.join(str(next(iter(each.values()))) for each in options)}"
        for name, options in TRIED.items()
        if len(options) > 1
    ]
    single = [[label(m), cells[m, "task_arithmetic"].text("single")] for m in methods]
    knows = [label(m) for m in methods if set(split_method(m)[1]) & set(OTHERS)]
    missing = [
        f"{TITLES[name]} on {label(m)}" for m in methods for name in TRIED if (m, name) not in cells
    ]
    cost = [
        [
            TITLES[name],
            *(cells[m, name].own() if (m, name) in cells else "" for m in methods),
            f"{max(c.mean('seconds') for (_, each), c in cells.items() if each == name):.2f}",
        ]
        for name in TRIED
        if any((m, name) in cells for m in methods)
    ]
    return "\n".join(
        [
            "# Every merger with every penalty\n",
            f"    {arguments.command or 'python ' + ' '.join(sys.argv)}\n",
            f"Tasks: {tasks}. Seeds: {seeds}. Test, per cent: mean and sample standard deviation "
            "over seeds. The merged model is θ₀ + α τ. Alpha is searched on validation as in a "
            "run, with the same number of evaluations for every merger; where a merger has two "
            f"values of its own parameter ({'; '.join(own)}), validation chooses one with the "
            "first seed.",
            *([f"λ: {', '.join(strengths)}.\n"] if strengths else []),
            *(
                [f"{', '.join(knows)} see the other tasks while they train; the others do not.\n"]
                if knows
                else [""]
            ),
            *([f"Not measured yet: {', '.join(missing)}.\n"] if missing else []),
            "## In words\n",
            *reading(cells, methods),
            "\n![Abs by merger and method](mergers.png)\n",
            "## Abs, α by validation\n",
            table(cells, methods, lambda cell: cell.text("absolute")) + "\n",
            "Each task's own model: " + "; ".join(f"{m} {value}" for m, value in single) + ".\n",
            *(
                [
                    "## What a penalty adds\n",
                    table(found, penalised, difference) + "\n",
                    "Abs minus that of the same mode and merger without a penalty, in points; in "
                    "brackets the 95 % bootstrap interval over test images, bold where it excludes "
                    "0.\n",
                ]
                if found
                else []
            ),
            "## Norm, α by validation\n",
            table(cells, methods, lambda cell: cell.text("normalised")) + "\n",
            "## Abs at α = 1\n",
            table(cells, methods, lambda cell: cell.text("at_one")) + "\n",
            "## Alpha and relative length ‖ατ‖ / ‖θ₀‖\n",
            table(
                cells,
                methods,
                lambda cell: f"{cell.mean('alpha'):.3g}; {cell.mean('relative_length'):.3f}",
            )
            + "\n",
            "## Own parameter, and seconds to merge\n",
            markdown_rows(("Merger", *map(label, methods), "seconds"), cost, left=len(methods) + 1)
            + "\n",
            "Seconds: where the mergers ran, the most of all methods, compilation and other work "
            "of the machine included; [spectral](spectral.md) is a benchmark.\n",
        ]
    )


def report(arguments: argparse.Namespace) -> None:
    """Writes the page from the existing results."""
    cells = read_cells(arguments.workdir, arguments.methods, arguments.seeds)
    methods = [m for m in arguments.methods if (m, "task_arithmetic") in cells]
    write_text(RESULTS / "mergers.md", page(arguments, cells))
    results = [
        {key: value for key, value in result.items() if key != "tried"}
        for cell in cells.values()
        for result in cell.results
    ]
    write_json(RESULTS / "mergers.json", results)
    with replacing(RESULTS / "mergers.png") as scratch:
        scratch.write_bytes(to_png(draw(cells, methods)))
    print(RESULTS / "mergers.md")
