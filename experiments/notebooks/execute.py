"""Runs the notebooks and stores their output: `make notebooks`, or by name.

python experiments/notebooks/execute.py [experiments/notebooks/compose_task_vectors.ipynb ...]
"""

import pathlib
import sys
import tempfile

import nbclient
import nbformat

FOLDER = pathlib.Path(__file__).parent


def execute(path: pathlib.Path, workdir: str) -> nbformat.NotebookNode:
    """Runs a notebook from top to bottom in its own process, in the folder `workdir`."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": workdir}}
    client = nbclient.NotebookClient(
        notebook, resources=place, record_timing=False, coalesce_streams=True
    )
    client.execute()
    return notebook


if __name__ == "__main__":
    for path in [pathlib.Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, folder)
        # Drops what differs between machines: times of progress, Python's version.
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [item for item in cell.outputs if item.get("name") != "stderr"]
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)
        print(path)
