import json
import subprocess
import sys

import pytest

from orthoreg_jax.reporting.report import plot_run, summary_text, write_report
from orthoreg_jax.storage import StorageError, write_sealed


def test_report_is_written(run_folder):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    assert "run&lt;1&gt;" in path.read_text(encoding="utf-8")
    names = {"addition", "tasks", "negation", "disentanglement", "cosines", "singular_values"}
    names |= {"angles", "norms", "training"}
    files = {name + kind for name in names for kind in (".png", ".svg", ".csv")}
    assert {file.name for file in (run_folder / "plots").iterdir()} == files
    assert (run_folder / "table.md").read_text(encoding="utf-8").count("\n## ") == 7
    assert "Non-linear FT + OrthoReg" in summary_text(run_folder)


def test_a_figure_for_a_notebook(run_folder):
    figure = plot_run(run_folder, "addition")
    assert [axes.get_title(loc="left") for axes in figure.axes][1] == "Absolute: accuracy, %"
    with pytest.raises(ValueError, match="figure 'alpha'; this run has addition, tasks, negation"):
        plot_run(str(run_folder), "alpha")


@pytest.mark.parametrize("act", [write_report, summary_text])
def test_missing_results(tmp_path, act):
    with pytest.raises(StorageError, match="results.json: no such file; run the stage `evaluate`"):
        act(tmp_path)


@pytest.mark.parametrize("content", [{"format": 1}, {}, []])
def test_unknown_format(tmp_path, content):
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="reads format 5"):
        write_report(tmp_path)


def test_damaged_files(run_folder):
    metrics = run_folder / "full+orthoreg" / "seed0" / "a" / "metrics.jsonl"
    metrics.write_text('{"step": 0')
    with pytest.raises(StorageError, match="metrics.jsonl: cannot be read"):
        write_report(run_folder)
    (run_folder / "results.json").write_text("{")
    with pytest.raises(StorageError, match="results.json"):
        write_report(run_folder)


def test_terminal_table_does_without_matplotlib():
    code = "import sys, orthoreg_jax.reporting.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_task_that_failed_costs_its_own_cells_alone(run_folder, results):
    """A dash in the cell, a sentence, and the rest of the page."""
    run = results["runs"][1]
    run["single"] = {split: {"a": 0.0, "b": 0.5} for split in ("val", "test")}
    run["addition"] |= {"failed": ["a"], "normalised": None}
    for each in ("at_one", "per_task"):
        run["addition"][each] |= {"normalised": None}
    write_sealed(run_folder / "results.json", results)
    page = write_report(run_folder).read_text()
    said = "the model fine-tuned on a has accuracy 0 on it, so Norm (–) is undefined"
    assert said in page and said in " ".join(summary_text(run_folder).split())
    (row,) = [line for line in summary_text(run_folder).splitlines() if "OrthoReg  " in line]
    assert row.split()[4:7] == ["25.00", "50.50", "–"]
    assert "nan" not in summary_text(run_folder) and "nan %" not in page
