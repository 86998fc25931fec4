"""The stage `report`: from results.json to plots, tables and report.html."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.evaluation.results_file import read_results
from orthoreg_jax.experiment.samples import read_samples
from orthoreg_jax.experiment.vectors import task_folder
from orthoreg_jax.storage import StorageError, replacing, write_text

from .accuracy_tables import (
    alpha_table,
    analogy_table,
    difference_table,
    other_search_table,
    summary_table,
    task_table,
)
from .geometry_tables import claims_table, features_table, geometry_table
from .tables import Table, format_markdown, format_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES: tuple[Callable[[Results], Table | None], ...] = (
    summary_table,
    other_search_table,
    difference_table,
    alpha_table,
    claims_table,
    task_table,
    analogy_table,
    geometry_table,
    features_table,
)


def write_report(folder: pathlib.Path) -> pathlib.Path:
    """Writes plots/ (PNG, SVG and CSV), table.md and report.html from a run folder's results.json.

    Returns:
      The path of report.html.

    Raises:
      StorageError: results.json is missing, changed or damaged, or a file cannot be read or
        written.
      ValueError: this version does not read the format of results.json.
    """
    results = read_results(folder)
    # Imported here, because drawing needs matplotlib and the terminal's table does not.
    from .html_elements import Drawing
    from .page import make_page
    from .plots import figures
    from .style import to_png, to_svg

    drawings = {}
    for name, draw in figures(results, read_metrics(folder, results)).items():
        panels = draw()  # one at a time, to save memory
        with replacing(folder / "plots" / f"{name}.png") as scratch:
            scratch.write_bytes(to_png(panels.figure))
        drawing = drawings[name] = Drawing(to_svg(panels.figure), panels.csv())
        write_text(folder / "plots" / f"{name}.svg", drawing.svg)
        write_text(folder / "plots" / f"{name}.csv", drawing.csv)
    tables = [table for make in TABLES if (table := make(results)) is not None]
    write_text(folder / "table.md", "\n".join(map(format_markdown, tables)))
    path = folder / "report.html"
    write_text(path, make_page(results, drawings, folder, read_samples(folder)))
    return path


def plot_run(workdir: str | os.PathLike[str], figure: str) -> Figure:
    """One of the report's figures, for a notebook.

    Args:
      workdir: a run folder whose stage `evaluate` is done.
      figure: "addition", "tasks", "negation", "disentanglement", "cosines", "singular_values",
        "angles", "norms" or "training".

    Returns:
      A matplotlib figure; you may change its axes.

    Raises:
      StorageError, ValueError: as `write_report`; or the run has not measured this figure.

    Examples:
      >>> oj.plot_run("runs/mine", "cosines").savefig("cosines.png")
    """
    from .plots import figures

    folder = pathlib.Path(workdir)
    results = read_results(folder)
    drawn = figures(results, read_metrics(folder, results))
    if figure not in drawn:
        raise ValueError(f"figure {figure!r}; this run has {', '.join(drawn)}")
    return drawn[figure]().figure


def summary_text(folder: pathlib.Path) -> str:
    """The summary table for a terminal, and that of the other alpha search, if measured.

    Raises:
      StorageError, ValueError: as `write_report`.
    """
    results = read_results(folder)
    other = other_search_table(results)
    more = "" if other is None else f"\n\n{other.title}\n\n{format_text(other)}"
    return format_text(summary_table(results)) + more


def read_metrics(
    folder: pathlib.Path, results: Results
) -> Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]:
    """Lines of every existing metrics.jsonl, by method."""
    metrics: dict[str, list[list[dict[str, Any]]]] = {}
    for run in results["runs"]:
        for task in results["tasks"]:
            path = task_folder(folder, run["method"], run["seed"], task) / "metrics.jsonl"
            if path.is_file():
                try:
                    lines = path.read_text(encoding="utf-8").splitlines()
                    history = [json.loads(line) for line in lines]
                except (OSError, ValueError, RecursionError) as error:
                    raise StorageError(
                        f"{path}: cannot be read ({error}); delete it to report without it"
                    ) from error
                metrics.setdefault(run["method"], []).append(history)
    return metrics
