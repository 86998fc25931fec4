"""Submodules of other packages are there where they are used, whatever else was imported before."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import orthoreg_jax

PACKAGE = pathlib.Path(orthoreg_jax.__file__).parent


def imports(tree):
    """Imported names by the names that they are bound to, without those for type checkers alone."""
    for_types = {
        inside
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inside in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.asname or each.name.partition(".")[0], each.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield "", node.module


def submodules_taken_for_granted(source):
    """Pairs `package, name` of `package.name` in a source that imports the package alone."""
    tree = ast.parse(source)
    bound = dict(imports(tree))
    loaded = {".".join(name.split(".")[:2]) for _, name in imports(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = bound.get(node.value.id, ".").partition(".")[0]
            if f"{package}.{node.attr}" not in loaded and _holds(package, node.attr):
                yield package, node.attr


def _holds(package, name):
    """Whether another package has a submodule of this name; nothing is imported."""
    if not package or package in sys.stdlib_module_names:
        return False
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or ()
    files = (f"{name}.py", f"{name}/__init__.py")
    return any((pathlib.Path(place) / file).exists() for place in places for file in files)


def test_a_submodule_that_is_taken_for_granted_is_found():
    assert [*submodules_taken_for_granted("import PIL\nPIL.Image.open, PIL.nothing")] == [
        ("PIL", "Image")
    ]
    assert not [*submodules_taken_for_granted("import PIL, PIL.Image\nPIL.Image.open")]


def test_packages_load_the_submodules_that_we_take_for_granted():
    """Each in a process of its own: here, some other import may have loaded them."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for package, name in submodules_taken_for_granted(path.read_text(encoding="utf-8")):
            found.setdefault(package, set()).add(name)
    assert "jax" in found
    for package, names in found.items():
        for order in (sorted(names), sorted(names, reverse=True)):  # one may load another
            code = f"import {package}; {', '.join(f'{package}.{name}' for name in order)}"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert done.returncode == 0, f"{package}: {done.stderr}"
