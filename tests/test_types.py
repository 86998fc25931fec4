"""A user's file passes the strict type checker."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

from orthoreg_jax import config
from orthoreg_jax.config.value_types import entry
from orthoreg_jax.option_list import parse_options

PROGRAM = """
import jax
import jax.numpy as jnp
import optax

import orthoreg_jax as oj

Weights = dict[str, jax.Array]


def loss(params: Weights) -> jax.Array:
    return jnp.mean(params["w"] ** 2)


def train(pretrained: Weights) -> Weights:
    optimizer = optax.chain(oj.add_orthogonality_penalty(0.01), optax.adam(1e-2))
    params, state = pretrained, optimizer.init(pretrained)
    for _ in range(3):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


pretrained = {"w": jnp.ones((4, 4))}
vectors = [oj.task_vector(train(pretrained), pretrained) for _ in range(2)]
oj.save_tree("merged.safetensors", oj.merge_task_vectors(vectors, oj.ties(20)))
clip = oj.load_checkpoint("embedded")
merged = oj.apply_task_vector(clip.params, oj.load_tree("merged.safetensors"), 0.3)
oj.save_checkpoint("merged", merged, like=clip)
"""
WRONG = PROGRAM + '\noj.add_orthogonality_penalty("much")\noj.ties(k=[])\n'


def check(folder, program):
    pytest.importorskip("mypy")
    (folder / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = silent\n"
        f"cache_dir = {folder}/cache\n"
        # They have types, but no marker that says so.
        "[mypy-optax.*,ml_collections.*]\nfollow_untyped_imports = True\n"
    )
    (folder / "program.py").write_text(program)
    root = pathlib.Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "program.py"],
        cwd=folder,
        env={"MYPYPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_a_users_file_passes_strict(tmp_path):
    # Two calls at the end are wrong: were the package untyped, they would pass, too.
    lines = check(tmp_path, WRONG).stdout.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 2, lines
    assert 'to "add_orthogonality_penalty" has incompatible type "str"' in errors[0]
    assert 'to "ties" has incompatible type' in errors[1]


OPTIONS = """
from ml_collections import ConfigDict

import orthoreg_jax as oj


def get_config() -> ConfigDict:
    config = oj.default_config()
    config.tasks = ("mnist", "emoji")
    config.training.steps = 300
    config.training.warmup = 30
    config.per_method["lora"].learning_rate = 1e-3
    config.penalty.tak.images = 64
    return config


oj.run_experiment(get_config(), "runs/mine")
reveal_type(oj.load_config("embedded").evaluation.alphas)
config = oj.default_config()
config.training.stepz = 300
config.training.steps = "many"
config.per_method["lora"].rank = 3
"""


def test_options_have_their_types_and_no_others(tmp_path):
    lines = check(tmp_path, OPTIONS).stdout.splitlines()
    errors = [line for line in lines if "error:" in line]
    assert re.search(r"Revealed type is .*\[(builtins\.)?float, \.\.\.\]", "\n".join(lines))
    assert [line.split(":")[1] for line in errors] == ["20", "21", "22"], lines


def annotations(name, classes, prefix=""):
    """Options that a class of the stub declares, by dotted name, and their types as written."""
    found = {}
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__getitem__":
            found |= annotations(ast.unparse(node.returns), classes, prefix + "METHOD.")
        if isinstance(node, ast.AnnAssign):
            key, kind = prefix + ast.unparse(node.target), ast.unparse(node.annotation)
            inner = annotations(kind, classes, key + ".") if kind in classes else {key: kind}
            found |= inner
    return found


def written(value):
    """A type as an annotation."""
    if isinstance(value, tuple):
        return f"tuple[{written(entry(value))}, ...]"
    return type(value).__name__


def test_declared_types_are_those_of_the_defaults():
    stub = pathlib.Path(config.__file__).with_name("typed.pyi").read_text()
    classes = {node.name: node for node in ast.parse(stub).body if isinstance(node, ast.ClassDef)}
    expected = {option.name: written(option.default) for option in parse_options()}
    assert annotations("Options", classes) == expected
