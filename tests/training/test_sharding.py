"""Eight virtual devices train as one does, in every mode, however weights and batches are cut."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from orthoreg_jax import load_tree
from orthoreg_jax.training.sharding import make_shardings
from tests.small_run import virtual_devices

PROGRAM = """
import json, pathlib, sys
import jax, jax.numpy as jnp, numpy as np, optax
from orthoreg_jax import (
    VISUAL_MATRICES, kronecker_factors, kronecker_penalty, save_tree, tau_jacobian_penalty,
)
from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import ClipConfig, VisionConfig
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.hosts import connect, fetch, is_first
from orthoreg_jax.training.saved_states import StateFolder
from orthoreg_jax.training.modes import MODES, make_mode
from orthoreg_jax.training.sharding import make_shardings
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.penalties import Penalty
from orthoreg_jax.training.step import init_state, make_train_step

path, devices, fsdp, accumulate = sys.argv[1], *map(int, sys.argv[2:5])
process, port, stop = map(int, sys.argv[5:8])
states, chosen = pathlib.Path(sys.argv[8]), sys.argv[9:]
if port:
    connect(f"127.0.0.1:{port}", 2, process)
processes = jax.process_count()
assert jax.device_count() == devices
sizes = ClipConfig(
    visual=VisionConfig(width=64, layers=2, heads=2, mlp_width=128, activation="gelu", eps=1e-5,
                        image_size=16, patch_size=8),
    text=None,
    projection=32,
)
tower = VisionTransformer(sizes.visual, sizes.projection)
params = tower.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
shardings = make_shardings(16 // accumulate, fsdp=fsdp)
params0 = shardings.put_weights(params)
apply = image_encoder(sizes, gather=shardings.gather)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5, momentum=0.9))
head = Head(jax.random.normal(jax.random.key(1), (5, 32)), jnp.int32(5))
head = jax.device_put(head, shardings.replicated)
share = slice(process * 16 // processes, (process + 1) * 16 // processes)
others = np.random.default_rng(1).integers(0, 255, (16, 16, 16, 3), dtype=np.uint8)
draws = jax.random.normal(jax.random.key(2), (16, 32))
factors = jax.device_get(kronecker_factors(tower, params, jnp.asarray(others / 255.0), draws))
tak = lambda apply, params0, delta, known: kronecker_penalty(delta, known)
vectors = {}
for name in MODES:
    for plus in (False, True):
        if chosen and name + "+orthoreg" * plus not in chosen:
            continue
        mode, rng = make_mode(name, default_config()), np.random.default_rng(0)
        penalties, known = (), ()
        if plus:
            penalties, known = (orthogonality(1.0, "released", VISUAL_MATRICES),), (None,)
        if plus and name == "full":  # all of them, with the other task's batch and factors
            penalties += Penalty(0.1, tau_jacobian_penalty), Penalty(0.1, tak)
            known += shardings.put_batch(others[share]), shardings.put_weights(factors)
        step = make_train_step(mode, apply, optimizer, lambda x: x / 255.0, penalties, shardings,
                               accumulate)
        init = lambda params0, key: init_state(mode, optimizer, params0, key)
        placement = shardings.weights(jax.eval_shape(init, params0, jax.random.key(0)))
        state = jax.jit(init, out_shardings=placement)(params0, jax.random.key(0))
        with StateFolder(states / (name + "+orthoreg" * plus)) as folder:
            state = folder.restore(state)
            for number in range(stop):
                images = rng.integers(0, 255, (16, 16, 16, 3), dtype=np.uint8)
                batch = shardings.put_batch((images[share], rng.integers(0, 5, 16)[share]))
                if number >= int(state.step):  # else done before it was saved
                    state, metrics = step(state, params0, head, *batch, known)
            if stop < 3:
                folder.save(state)
        assert bool(metrics.finite) and len(batch[0].sharding.device_set) == devices
        if name == "full":
            kernel = state.trainable["blocks"]["mlp"]["fc1"]["kernel"]
            piece = kernel.addressable_shards[0].data.size / kernel.size
            assert piece == 1 / fsdp, piece
        vectors[name + "+orthoreg" * plus] = fetch(dense(mode.delta(state.trainable, params0)))
if is_first():
    save_tree(path, vectors)
"""


def train(path, devices, fsdp, accumulate, processes=1, stop=3, states=None, methods=()):
    """Vectors after `stop` steps, each in one row; going on from `states` if given."""
    environment = os.environ | virtual_devices(devices // processes)
    port = free_port() if processes > 1 else 0
    running = []
    for process in range(processes):
        numbers = (devices, fsdp, accumulate, process, port, stop)
        places = (states or path.parent / "states", *methods)
        command = [sys.executable, "-c", PROGRAM, path, *numbers, *places]
        running.append(subprocess.Popen(list(map(str, command)), env=environment))
    assert [process.wait(timeout=1800) for process in running] == [0] * processes
    return {
        method: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(vector)])
        for method, vector in load_tree(path).items()
    }


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    vectors = train(tmp_path_factory.mktemp("single") / "vectors.safetensors", 1, 1, 1)
    assert len(vectors) == 10  # five modes, without and with OrthoReg
    return vectors


def assert_same(several, single):
    assert several
    # Descent with momentum: Adam divides by small second moments, where rounding grows.
    errors = {
        method: np.linalg.norm(vector - single[method]) / np.linalg.norm(single[method])
        for method, vector in several.items()
    }
    assert max(errors.values()) < 1e-5, json.dumps({k: float(v) for k, v in errors.items()})


# Every method on a mesh cut both ways, some on what is simpler: each compiles for many seconds.
SOME = ("full+orthoreg", "linearized", "lora+orthoreg")


@pytest.mark.parametrize(
    "devices, fsdp, accumulate, processes, methods",
    [(8, 4, 2, 1, ()), (8, 1, 1, 1, SOME[:2]), (4, 2, 1, 2, SOME)],
)
def test_devices_and_processes_agree(
    single, tmp_path, devices, fsdp, accumulate, processes, methods
):
    path = tmp_path / "vectors.safetensors"
    vectors = train(path, devices, fsdp, accumulate, processes, methods=methods)
    assert set(vectors) == set(methods or single)
    assert_same(vectors, single)


def test_begun_on_eight_devices_it_goes_on_with_one_and_with_four_of_two_processes(
    single, tmp_path
):
    begun, methods = tmp_path / "begun", ("full+orthoreg", "lora")
    train(tmp_path / "begun.safetensors", 8, 4, 2, stop=2, states=begun, methods=methods)
    for devices, fsdp, processes in ((1, 1, 1), (4, 2, 2)):
        states = shutil.copytree(begun, tmp_path / f"on {devices}")
        path = tmp_path / f"{devices}.safetensors"
        vectors = train(path, devices, fsdp, 1, processes, states=states, methods=methods)
        assert_same(vectors, single)


@pytest.mark.parametrize("fsdp, sizes, message", [
    (3, (4,), "training.fsdp 3: 1 devices cannot be split"),
])  # fmt: skip
def test_what_cannot_be_split_is_said(fsdp, sizes, message):
    with pytest.raises(ValueError, match=message):
        make_shardings(*sizes, fsdp=fsdp)
