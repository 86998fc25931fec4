"""The notebooks run from top to bottom, as a reader's process runs them, and are kept small."""

import pathlib
import sys

import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "notebooks"
sys.path.insert(0, str(FOLDER))

from execute import execute  # noqa: E402

every_notebook = pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem
)


def kinds(cell):
    """Of what a cell shows: texts and plots, but not a run's progress."""
    shown = [item for item in cell.outputs if item.get("name") != "stderr"]
    return [(item.output_type, *sorted(item.get("data", {}))) for item in shown]


@every_notebook
@pytest.mark.filterwarnings("default")  # those of Jupyter's own parts
def test_it_runs_and_shows_what_is_stored(path, tmp_path):
    stored = nbformat.read(path, as_version=4)
    ran = execute(path, str(tmp_path))  # raises what a cell raises
    for before, after in zip(stored.cells, ran.cells, strict=True):
        if before.cell_type == "code":
            assert kinds(before) == kinds(after), f"run `make notebooks`: {before.source}"


@every_notebook
def test_it_is_small_and_needs_the_public_list_alone(path):
    assert path.stat().st_size < 150_000
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert "orthoreg_jax." not in cell.source and "from orthoreg_jax" not in cell.source
