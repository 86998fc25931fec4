"""Each room imports only from the rooms above it."""

import ast
import pathlib
import sys

import orthoreg_jax

PACKAGE = pathlib.Path(orthoreg_jax.__file__).parent
ROOMS = ["arithmetic", "hosts", "storage", "progress", "clip", "tasks", "training", "evaluation",
         "config", "experiment", "reporting", "stages", "cli"]  # fmt: skip


def imported_rooms(path):
    """Rooms named by a module's imports, those inside of functions included."""
    parents = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{name}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "orthoreg_jax" and len(parts) > 1:
                yield parts[1]


def test_every_module_imports_upwards_only():
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room == "__init__":
            continue
        seen.add(room)
        for other in imported_rooms(path):
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path}: imports from {other}"
    assert seen == set(ROOMS)


def test_arithmetic_needs_jax_and_optax_only():
    allowed = sys.stdlib_module_names | {"numpy", "jax", "jaxtyping", "optax"}
    for path in (PACKAGE / "arithmetic").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] in allowed, path
