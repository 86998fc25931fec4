"""Each way to fine-tune: its functions against formulas, and training steps with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.low_rank import LowRank, dense
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip.config import VisionConfig
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import default_config
from orthoreg_jax.training.modes import MODES, linearized, lora, make_mode
from orthoreg_jax.training.modes.lora import PLACEMENTS
from orthoreg_jax.training.modes.mode import edited_outputs, linearized_outputs, only
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

WIDTH, LAYERS, RANK = 8, 2, 3
TOWER = VisionTransformer(
    VisionConfig(
        width=WIDTH,
        layers=LAYERS,
        heads=2,
        mlp_width=16,
        activation="gelu",
        eps=1e-5,
        image_size=8,
        patch_size=4,
    ),
    6,
)
PIXELS = jax.random.normal(jax.random.key(1), (5, 8, 8, 3))


def apply(params, pixels):
    return TOWER.apply({"params": params}, pixels)


@pytest.fixture(scope="module")
def params0():
    params = TOWER.init(jax.random.key(0), PIXELS)["params"]
    # Of a size at which the network is far from linear.
    noise = jax.random.split(jax.random.key(2), len(jax.tree.leaves(params)))
    noise = jax.tree.unflatten(jax.tree.structure(params), list(noise))
    return jax.tree.map(lambda x, k: x + 0.3 * jax.random.normal(k, x.shape), params, noise)


def vector_like(params, seed, size=0.05):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return structure.unflatten(
        [size * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def options(**changes):
    return ConfigDict({"rank": RANK, "alpha": 6.0, "placement": "qkvo"} | changes)


def test_linearized_forward_is_the_first_order_expansion(params0):
    mode = linearized(ConfigDict({"normalized": False}))
    tau = vector_like(params0, 3)
    outputs = mode.forward(apply, params0, jax.tree.map(jnp.add, params0, tau), PIXELS)
    with jax.enable_x64():  # central differences of the plain network, written out
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (params0, tau))
        tower = VisionTransformer(TOWER.config, 6, jnp.float64)

        def at(scale):
            params = jax.tree.map(lambda p, t: p + scale * t, *wide)
            pixels = jnp.asarray(np.asarray(PIXELS), jnp.float64)
            return np.asarray(tower.apply({"params": params}, pixels))

        expected = at(0.0) + (at(1e-2) - at(-1e-2)) / 2e-2
        curvature = np.max(np.abs(at(1.0) - expected))
    error = np.max(np.abs(np.asarray(outputs) - expected))
    assert error < 5e-4 and curvature > 100 * error


def test_linearized_outputs_of_a_grid_equal_forward_at_each_point(params0):
    mode = linearized(ConfigDict({"normalized": False}))
    vectors = [vector_like(params0, seed) for seed in (3, 4)]
    rows = jnp.array([[0.0, 0.0], [1.0, 0.0], [-0.5, 2.0]])
    grid = linearized_outputs(apply, params0, vectors, rows, PIXELS)
    for row, outputs in zip(rows, grid, strict=True):
        trainable = jax.tree.map(
            lambda p, a, b, row=row: p + row[0] * a + row[1] * b, params0, *vectors
        )
        expected = mode.forward(apply, params0, trainable, PIXELS)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert mode.outputs is linearized_outputs


def test_linearized_of_normalised_features(params0):
    mode = linearized(ConfigDict({"normalized": True}))
    tau = vector_like(params0, 3)

    def unit(params):
        features = apply(params, PIXELS)
        return features / jnp.linalg.norm(features, axis=-1, keepdims=True)

    start, slope = jax.jvp(unit, (params0,), (tau,))
    forward = mode.forward(apply, params0, jax.tree.map(jnp.add, params0, tau), PIXELS)
    np.testing.assert_allclose(forward, start + slope, rtol=1e-4, atol=1e-5)
    grid = mode.outputs(apply, params0, [tau], jnp.array([[0.0], [0.5]]), PIXELS)
    np.testing.assert_allclose(grid, jnp.stack([start, start + 0.5 * slope]), rtol=1e-4, atol=1e-5)
    plain = linearized(ConfigDict({"normalized": False}))
    assert np.abs(forward - plain.forward(apply, params0, tau, PIXELS)).max() > 0.1


def test_edited_outputs_add_vectors_of_parts(params0):
    whole, part = vector_like(params0, 3), {"projection": vector_like(params0["projection"], 4)}
    rows = jnp.array([[0.0, 0.0], [0.5, -2.0]])
    grid = edited_outputs(apply, params0, [whole, part], rows, PIXELS)
    np.testing.assert_allclose(grid[0], apply(params0, PIXELS), rtol=1e-5, atol=1e-6)
    edited = jax.tree.map(lambda p, v: p + 0.5 * v, params0, whole)
    edited["projection"]["kernel"] -= 2.0 * part["projection"]["kernel"]
    np.testing.assert_allclose(grid[1], apply(edited, PIXELS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_lora_against_its_formula(params0, placement):
    mode = lora(options(placement=placement))
    trainable = mode.init(params0, jax.random.key(0))
    kernels = {path: leaf for path, leaf in flatten(params0).items() if "blocks" in path}
    delta = flatten(mode.delta(trainable, params0), lambda node: isinstance(node, LowRank))
    names = {"qkvo": "in_proj out_proj", "qkv": "in_proj", "qv": "in_proj", "mlp": "fc1 fc2"}
    wanted = names.get(placement, "in_proj out_proj fc1 fc2").split()
    assert sorted(path.split("/")[-2] for path in delta) == sorted(wanted)
    for path, update in delta.items():
        rows = kernels[path].shape[-2]
        assert update.shape == kernels[path].shape and update.scale == 6.0 / RANK
        assert not np.any(update.right) and 0 < np.max(np.abs(update.left)) <= rows**-0.5
        # Uniform: its standard deviation is the bound / sqrt(3).
        assert np.isclose(np.std(update.left), (rows / 1) ** -0.5 / 3**0.5, rtol=0.25)
    # At the start the model is the pre-trained one.
    np.testing.assert_allclose(
        mode.forward(apply, params0, trainable, PIXELS), apply(params0, PIXELS), rtol=1e-5
    )
    trained = jax.tree.map(lambda x: x + 0.1, trainable)
    weights, a_and_b = flatten(params0), flatten(trained)
    for path in delta:
        a, b = (np.asarray(a_and_b[f"{path}/{name}"]) for name in "ab")
        if placement == "qv":  # nothing is written to the keys' third
            b = np.concatenate([b[..., :WIDTH], 0 * b[..., :WIDTH], b[..., WIDTH:]], axis=-1)
        update = 6.0 / RANK * np.einsum("lmr,lrn->lmn", a, b)
        made = flatten(dense(mode.delta(trained, params0)))[path]
        np.testing.assert_allclose(made, update, rtol=1e-4, atol=1e-6)
        weights[path] = weights[path] + update
    expected = apply(
        jax.tree.unflatten(jax.tree.structure(params0), list(weights.values())), PIXELS
    )
    outputs = mode.forward(apply, params0, trained, PIXELS)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_a_mode_of_one_s_own_is_one_line(params0):
    """BitFit: biases alone."""
    mode = only(("*/bias",), "BitFit")
    trainable = jax.tree.map(lambda x: x + 1, mode.init(params0, jax.random.key(0)))
    assert flatten(trainable) and all(path.endswith("/bias") for path in flatten(trainable))
    assert all(np.allclose(leaf, 1) for leaf in jax.tree.leaves(mode.delta(trainable, params0)))
    edited = jax.tree.map_with_path(lambda path, x: x + (path[-1].key == "bias"), params0)
    np.testing.assert_allclose(
        mode.forward(apply, params0, trainable, PIXELS), apply(edited, PIXELS), rtol=1e-5
    )
    with pytest.raises(ValueError, match="no leaf matches 'bias'"):
        only(("bias",), "misspelt").init(params0, jax.random.key(0))


# OrthoReg pulls DELTA's student and teacher apart; see test_delta.py.
@pytest.mark.parametrize(
    "name, strength",
    [
        (name, strength)
        for name in MODES
        for strength in (0.0, 0.5)
        if (name, strength) != ("delta", 0.5)
    ],
)
def test_training_changes_what_the_mode_says_and_nothing_else(params0, name, strength):
    config = default_config()
    config.lora = options()
    mode = make_mode(name, config)
    optimizer = make_optimizer(1e-2, 0, 20, 0.1, 1.0)
    penalty = (orthogonality(strength, "released", VISUAL_MATRICES),) if strength else ()
    step = make_train_step(mode, apply, optimizer, lambda images: images / 255, penalty)
    head = Head(jax.random.normal(jax.random.key(5), (4, 6)), jnp.int32(4))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 255, (8, 8, 8, 3)), jnp.uint8)
    labels = jnp.arange(8) % 4
    state = init_state(mode, optimizer, params0, jax.random.key(0))
    losses = []
    for _ in range(15):
        state, metrics = step(state, params0, head, images, labels)
        losses.append(float(metrics.loss))
        assert metrics.finite
    assert losses[-1] < losses[0]
    changed = set(flatten(dense(mode.delta(state.trainable, params0))))
    attention = {f"blocks/attn/{part}_proj/kernel" for part in ("in", "out")}
    assert changed == (attention if name in ("attention", "lora") else set(flatten(params0)))
    # What training saw is what its task vector gives at alpha 1.
    vector = dense(mode.delta(state.trainable, params0))
    trained = mode.forward(apply, params0, state.trainable, PIXELS)
    evaluated = mode.outputs(apply, params0, [vector], jnp.ones((1, 1)), PIXELS)[0]
    np.testing.assert_allclose(evaluated, trained, rtol=1e-4, atol=1e-5)
