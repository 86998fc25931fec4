"""Mergers and options that mergers.py tries, files of its results, and their page and plot."""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.reporting.panels import Panels
from orthoreg_jax.reporting.style import method_look, styled, to_png
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, replacing, write_json, write_text
from orthoreg_jax.training.modes import MODES, make_mode

RESULTS = pathlib.Path(__file__).parent / "results"
# ||alpha tau|| as a share of ||sum_t tau_t||; mergers that rebuild the spectrum need larger values.
SHARES = (0.1, 0.16, 0.25, 0.4, 0.63, 1.0)
SPECTRAL_SHARES = (0.25, 0.4, 0.63, 0.8, 1.0, 1.25, 1.6)
LONG_SHARES = (*SPECTRAL_SHARES, 2.0, 2.5)
# Values tried of each merger's own parameter, the paper's default first.
TRIED: dict[str, tuple[dict[str, Any], ...]] = {
    "task_arithmetic": ({},),
    "ties": ({"k": 20}, {"k": 50}),
    "dare": ({"p": 0.9}, {"p": 0.5}),
    "dare_ties": ({"p": 0.9}, {"p": 0.5}),
    "breadcrumbs": ({"beta": 0.85}, {"beta": 0.5}),
    "consensus": ({"lambda_": 0.4}, {"lambda_": 0.2}),
    "tsv_m": ({},),
    "iso_c": ({},),
    "iso_cts": ({"common_space_fraction": 0.8}, {"common_space_fraction": 0.5}),
}
TITLES = {
    "task_arithmetic": "Task arithmetic",
    "ties": "TIES",
    "dare": "DARE",
    "dare_ties": "DARE-TIES",
    "breadcrumbs": "Breadcrumbs",
    "consensus": "Consensus TA",
    "tsv_m": "TSV-M",
    "iso_c": "Iso-C",
    "iso_cts": "Iso-CTS",
}


def shares(merger: str) -> tuple[float, ...]:
    """Grid of a merger."""
    longer = {"tsv_m": SPECTRAL_SHARES, "iso_c": LONG_SHARES, "iso_cts": LONG_SHARES}
    return longer.get(merger, SHARES)


def kept(workdir: pathlib.Path, method: str, seed: int, merger: str) -> pathlib.Path:
    """File of one result."""
    return workdir / method / f"seed{seed}" / f"{merger}.json"


class Cell(NamedTuple):
    """Results of one merger with one method, by seed."""

    results: list[dict[str, Any]]

    def values(self, key: str) -> list[float]:
        """By seed."""
        return [result[key] for result in self.results]

    def text(self, key: str, scale: float = 100.0, digits: int = 2) -> str:
        """Mean and, for accuracies, standard deviation over seeds."""
        values = [scale * value for value in self.values(key)]
        mean = f"{statistics.fmean(values):.{digits}f}"
        spread = len(values) > 1 and scale == 100.0
        return f"{mean} ± {statistics.stdev(values):.{digits}f}" if spread else mean

    @property
    def cells(self) -> list[str]:
        """Columns of the table."""
        edge = "*" if any(self.values("at_edge")) else ""
        options = self.results[0]["options"]
        own = ", ".join(f"{key.strip('_')} {value:g}" for key, value in options.items())
        numbers = [self.text(key) for key in ("single", "absolute", "normalised")]
        return [own, *numbers, self.text("alpha", 1.0) + edge]


def read_cells(arguments: argparse.Namespace) -> dict[tuple[str, str], Cell]:
    """(method, merger) -> existing results of all seeds."""
    cells = {}
    seeds = read_json(arguments.run / "config.json")["seeds"]
    for method in arguments.methods:
        for name in TRIED:
            paths = [kept(arguments.workdir, method, seed, name) for seed in seeds]
            if all(path.is_file() for path in paths):
                cells[method, name] = Cell([read_json(path) for path in paths])
    return cells


def gains(cells: Mapping[tuple[str, str], Cell]) -> dict[tuple[str, str], list[float]]:
    """(mode, merger) -> Abs with the penalty minus without, by seed, in points."""
    found = {}
    for (method, name), cell in cells.items():
        without = cells.get((method.removesuffix(ORTHOREG), name))
        if method.endswith(ORTHOREG) and without is not None:
            pairs = zip(cell.values("absolute"), without.values("absolute"), strict=True)
            found[method.removesuffix(ORTHOREG), name] = [100 * (a - b) for a, b in pairs]
    return found


def spread_text(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):+.2f} ± {statistics.stdev(values):.2f}"


def tables(cells: Mapping[tuple[str, str], Cell]) -> list[str]:
    """One table for each mode."""
    texts, found = [], gains(cells)
    half = ("own parameter", "single", "Abs", "Norm", "α")
    for mode in MODES:
        rows = []
        for name in TRIED:
            pair = [cells.get((mode + plus, name)) for plus in ("", ORTHOREG)]
            if pair[0] is None:
                continue
            with_penalty = pair[1].cells if pair[1] else [""] * len(half)
            gain = spread_text(found[mode, name]) if pair[1] else ""
            rows.append([TITLES[name], *pair[0].cells, *with_penalty, gain])
        if rows:
            header = ("Merger", *half, f"+ OrthoReg: {half[0]}", *half[1:], "gain in Abs")
            label = make_mode(mode, default_config()).label
            texts.append(f"## {label}\n\n{markdown_rows(header, rows)}\n")
    return texts


def verdict(cells: Mapping[tuple[str, str], Cell]) -> list[str]:
    """Conclusions from the numbers, in words."""
    found, lines = gains(cells), []
    if not found:
        return ["No method has results both without and with the penalty."]
    modes = {mode: make_mode(mode, default_config()).label for mode, _ in found}
    beyond = {k: v for k, v in found.items() if abs(statistics.fmean(v)) > statistics.stdev(v)}
    up = [key for key, values in beyond.items() if statistics.fmean(values) > 0]
    lines.append(
        f"Of {len(found)} pairs of mode and merger, the penalty raises Abs by more than the gain's "
        f"standard deviation over seeds in {len(up)}, lowers it by more than that in "
        f"{len(beyond) - len(up)}, and is within noise in {len(found) - len(beyond)}."
    )
    rows = []
    for name in TRIED:
        own = {mode: values for (mode, each), values in found.items() if each == name}
        if own:
            every = [value for values in own.values() for value in values]
            each = [spread_text(own[mode]) if mode in own else "" for mode in modes]
            rows.append([TITLES[name], *each, spread_text(every)])
    header = ("Gain in Abs, points", *modes.values(), "all modes and seeds")
    lines.append(markdown_rows(header, rows))

    def mean(key: tuple[str, str]) -> float:
        return statistics.fmean(cells[key].values("absolute"))

    best = max(cells, key=mean)
    for mode, label in modes.items():
        for plus in ("", ORTHOREG):
            here = [key for key in cells if key[0] == mode + plus]
            top, base = max(here, key=mean), (mode + plus, "task_arithmetic")
            lines.append(
                f"- {label}{' + OrthoReg' * bool(plus)}: {TITLES[top[1]]} is best, "
                f"{cells[top].text('absolute')}; plain addition has {cells[base].text('absolute')}."
            )
    lines.append(
        f"Best of all: {TITLES[best[1]]} on `{best[0]}`, Abs {cells[best].text('absolute')}, Norm "
        f"{cells[best].text('normalised')}."
    )
    return lines


@styled
def draw(cells: Mapping[tuple[str, str], Cell]) -> Figure:
    """Abs of each merger, a panel for each mode, without and with the penalty."""
    modes = [mode for mode in MODES if any(method == mode for method, _ in cells)]
    titles = [make_mode(mode, default_config()).label for mode in modes]
    panels = Panels(titles, ("mode", "merger"), 2, 3.1, sharey=True, sharex=True)
    places = np.arange(len(TRIED))
    for mode, axis in zip(modes, panels.axes, strict=True):
        for shift, plus in ((-0.14, ""), (0.14, ORTHOREG)):
            there = [(y, cells.get((mode + plus, name))) for y, name in enumerate(TRIED)]
            points = [(y, [100 * v for v in c.values("absolute")]) for y, c in there if c]
            if not points:
                continue
            axis.errorbar(
                [statistics.fmean(values) for _, values in points],
                [y + shift for y, _ in points],
                xerr=[statistics.stdev(values) for _, values in points],
                **method_look(mode + plus) | {"linestyle": "none"},
                markersize=5,
                elinewidth=1.2,
                label="with OrthoReg" if plus else "without",
            )
        axis.set_yticks(places, [TITLES[name] for name in TRIED])
        axis.set_ylim(len(TRIED) - 0.5, -0.5)
        axis.legend(loc="lower left", fontsize=8)
    for axis in panels.axes[-2:]:
        axis.set_xlabel("Abs: mean test accuracy, %")
    return panels.figure


def report(arguments: argparse.Namespace) -> None:
    """Writes the page from the existing results."""
    cells = read_cells(arguments)
    missing = [m for m in arguments.methods if not all((m, name) in cells for name in TRIED)]
    zero_shot = read_json(arguments.run / "results.json")["zero_shot"]["test"]
    tasks = read_json(arguments.run / "config.json")["tasks"]
    base = 100 * statistics.fmean(zero_shot[task] for task in tasks)
    grids = [
        ", ".join(f"{share:g}" for share in shares(name)) for name in ("task_arithmetic", "tsv_m")
    ]
    more = " and ".join(f"{share:g}" for share in LONG_SHARES[len(SPECTRAL_SHARES) :])
    own = "; ".join(
        f"{TITLES[name]} {' or '.join(str(next(iter(o.values()))) for o in options)}"
        for name, options in TRIED.items()
        if len(options) > 1
    )
    text = [
        "# OrthoReg under every merger\n",
        f"    {arguments.command or 'python ' + ' '.join(sys.argv)}\n",
        f"Test, per cent, mean and standard deviation over seeds of the run; zero-shot {base:.2f}. "
        "The merged model is θ₀ + α τ. Alpha and own parameter: best validation mean of normalised "
        f"accuracy. Alphas are those that make ‖ατ‖ {grids[0]} of ‖Σ τ_t‖, for TSV-M "
        f"{grids[1]}, for Iso also {more}; *: one of the seeds is at an end of its grid. Own "
        f"parameters ({own}) are chosen with the first seed and kept for the others. The plain "
        "average is the sum at another α, so it has no row. Linearised models are evaluated as "
        "linearised.\n",
        *([f"Not finished: {', '.join(missing)}.\n"] if missing else []),
        "## Verdict\n",
        *(f"{line}\n" for line in verdict(cells)),
        "![Abs by merger](mergers.png)\n",
        *tables(cells),
    ]
    write_text(RESULTS / "mergers.md", "\n".join(text))
    write_json(RESULTS / "mergers.json", [r for cell in cells.values() for r in cell.results])
    with replacing(RESULTS / "mergers.png") as scratch:
        scratch.write_bytes(to_png(draw(cells)))
    print(RESULTS / "mergers.md")
