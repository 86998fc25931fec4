"""A user's file passes the strict type checker."""

import pathlib
import subprocess
import sys

import pytest

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
        # optax has types, but no marker that says so.
        "[mypy-optax.*]\nfollow_untyped_imports = True\n"
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
