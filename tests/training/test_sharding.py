"""Data parallelism: eight virtual devices train as one does."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from orthoreg_jax import load_tree

PROGRAM = """
import sys
import jax, numpy as np, optax
from orthoreg_jax import VISUAL_MATRICES, load_checkpoint, image_encoder, save_tree
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.clip.zeroshot import pad_heads
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.sharding import make_shardings
from orthoreg_jax.training.step import Penalty, init_state, make_train_step

model, mode = load_checkpoint("embedded"), MODES["full"](None)
normalize = load_preprocessing(model.directory, model.config).normalize
shardings = make_shardings(16)
put = lambda tree: jax.device_put(tree, shardings.replicated)
params0 = put(model.params["visual"])
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
step = make_train_step(mode, image_encoder(model.config), optimizer, normalize,
                       Penalty(1.0, "released", VISUAL_MATRICES))
rng = np.random.default_rng(0)
head = put(pad_heads({"t": rng.normal(size=(5, model.config.projection)).astype("float32")})["t"])
state = put(init_state(mode, optimizer, params0, jax.random.key(0)))
for number in range(3):
    images = rng.integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)
    batch = jax.device_put((images, rng.integers(0, 5, 16)), shardings.batch)
    state, metrics = step(state, params0, head, *batch)
assert len(batch[0].sharding.device_set) == jax.device_count() == int(sys.argv[2])
save_tree(sys.argv[1], mode.delta(state.trainable, params0))
"""


@pytest.mark.parametrize("devices", [8])
def test_devices_agree(tmp_path, devices):
    vectors = []
    for count in (1, devices):
        path = tmp_path / f"{count}.safetensors"
        flags = f"--xla_force_host_platform_device_count={count}"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", PROGRAM, str(path), str(count)]
        subprocess.run(command, env=environment, check=True)
        tree = load_tree(path)
        vectors.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]))
    difference = np.linalg.norm(vectors[0] - vectors[1]) / np.linalg.norm(vectors[0])
    # Plain descent: Adam divides by small second moments, where rounding grows.
    assert difference < 1e-5, difference
