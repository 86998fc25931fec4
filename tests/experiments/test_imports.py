"""What scripts import from the package is there: found before one of them is run."""

import ast
import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(FOLDER.rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_what_a_script_imports_is_there(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orthoreg_jax"):
            module = importlib.import_module(node.module)
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            # A module of a package is no attribute of it until it is imported.
            for name in missing:
                importlib.import_module(f"{node.module}.{name}")
