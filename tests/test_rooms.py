"""Each room imports only from the rooms above it, and no module imports itself around corners."""

import ast
import graphlib
import pathlib
import re
import sys

import pytest

import orthoreg_jax

PACKAGE = pathlib.Path(orthoreg_jax.__file__).parent
HOUSE = pathlib.Path(__file__).parents[1] / "docs" / "house.md"
# The order of the rooms stands there alone.
ROOMS = re.findall(r"^\| `(\w+)` \|", HOUSE.read_text(), re.MULTILINE)
NAMES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(path):
    """Full names that a module imports, those inside of functions included."""
    parents = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_modules(path):
    """Modules of the package that a module imports."""
    for name in imported(path):
        module = name if name in NAMES else name.rpartition(".")[0]
        if module in NAMES:
            yield module


def test_every_module_imports_upwards_only():
    seen = set()
    for name, path in NAMES.items():
        if name == "orthoreg_jax":
            continue
        room = name.split(".")[1]
        seen.add(room)
        for other in own_modules(path):
            assert other != "orthoreg_jax", f"{path}: imports the public list"
            assert ROOMS.index(other.split(".")[1]) <= ROOMS.index(room), f"{path}: {other}"
    assert seen == set(ROOMS)


def test_no_module_imports_itself_around_corners():
    graph = {name: set(own_modules(path)) - {name} for name, path in NAMES.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert sorted(order) == sorted(NAMES)


@pytest.mark.parametrize("room", ["arithmetic", "penalties", "merging"])
def test_pure_rooms_need_little(room):
    """What stands without the command line is light; a linen model's curvature is of flax."""
    third_party = {"numpy", "jax", "jaxtyping", "optax", "threadpoolctl"}
    allowed = sys.stdlib_module_names | third_party | {"orthoreg_jax"}
    for path in (PACKAGE / room).rglob("*.py"):
        more = {"flax"} if path.name == "curvature.py" else set()
        assert {name.split(".")[0] for name in imported(path)} <= allowed | more, path


def test_only_decompositions_call_lapack():
    """A batch of these may stop for ever in XLA's CPU client, and so may a matrix with Inf."""
    names = {"svd", "svdvals", "eigh", "eigvalsh", "eig", "qr", "cholesky", "inv", "pinv", "solve",
             "lstsq", "matrix_rank", "slogdet", "det", "cond", "polar", "expm"}  # fmt: skip
    for path in PACKAGE.rglob("*.py"):
        if path.name == "decompositions.py":
            continue
        called = {
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        assert not called & names, path


# `main` is twice the command's door; figures are called after what they show, as their files are.
TWICE = {"main", "norms", "singular_values"}


def test_a_name_stands_for_one_thing():
    places = {}
    for name, path in NAMES.items():
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            for target in targets:
                found = getattr(target, "name", None) or getattr(target, "id", None)
                found = found or getattr(getattr(target, "target", None), "id", None)
                if found and not found.startswith("_"):
                    places.setdefault(found, set()).add(name)
    assert {each: where for each, where in places.items() if len(where) > 1}.keys() <= TWICE
