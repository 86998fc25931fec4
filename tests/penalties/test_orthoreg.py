"""The penalty against formulas written here in numpy float64, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from orthoreg_jax import (
    LowRank,
    Matrix,
    Skip,
    add_orthogonality_penalty,
    orthogonality_penalty,
)

SHAPES = [(1, 1), (1, 5), (5, 1), (4, 4), (7, 3), (3, 7), (64, 16), (16, 48)]


def oracle(update, form):
    """Value and gradient, straight from the definition, in float64."""
    w = np.asarray(update, np.float64)
    over_columns = form == "paper" or w.shape[0] >= w.shape[1]
    if not over_columns:
        value, gradient = oracle(w.T, form)
        return value, gradient.T
    error = w.T @ w - np.eye(w.shape[1])
    norm = np.linalg.norm(error)
    if form == "paper":
        return norm**2, 4 * w @ error
    return norm, 2 * w @ error / norm


def random_update(shape, scale, dtype=jnp.float32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * scale, dtype)


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 0.3, 3.0])
def test_value_and_gradient(form, shape, scale):
    update = random_update(shape, scale)
    value, gradient = jax.jit(
        jax.value_and_grad(lambda w: orthogonality_penalty({"w": w}, form=form))
    )(update)
    expected_value, expected_gradient = oracle(update, form)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    error = np.linalg.norm(gradient - expected_gradient) / np.linalg.norm(expected_gradient)
    assert error < 1e-5


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_float64_against_finite_differences_in_both_modes(form, shape):
    with jax.enable_x64():
        update = random_update(shape, 0.5, jnp.float64)
        check_grads(lambda w: orthogonality_penalty(w, form=form), (update,), order=2, rtol=1e-6)
        assert orthogonality_penalty(update, form=form).dtype == jnp.float64


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("shape", SHAPES)
def test_zero_update(form, shape):
    value, gradient = jax.value_and_grad(lambda w: orthogonality_penalty(w, form=form))(
        jnp.zeros(shape)
    )
    assert np.isclose(value, np.sqrt(min(shape)) if form == "released" else shape[1])
    assert not np.any(gradient)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(8, 8), (64, 16), (16, 64), (300, 200), (1, 7)])
def test_orthonormal_update_has_zero_gradient(shape, seed):
    tall = np.linalg.qr(np.random.default_rng(seed).normal(size=(max(shape), min(shape))))[0]
    update = jnp.asarray(tall if shape[0] >= shape[1] else tall.T, jnp.float32)
    value, gradient = jax.value_and_grad(orthogonality_penalty)(update)
    assert value < 1e-4
    assert not np.any(gradient)
    for exact in (jnp.eye(*shape), 0 * jnp.eye(*shape)):
        assert not np.any(jax.grad(orthogonality_penalty)(exact))


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("update", [jnp.eye(3), jnp.zeros((3, 2)), jnp.ones((2, 3))])
def test_second_derivatives_are_finite(form, update):
    gradient = jax.grad(lambda w: orthogonality_penalty(w, form=form))
    for second in (jax.jacfwd(gradient), jax.jacrev(gradient)):
        assert np.all(np.isfinite(second(update)))
    assert np.all(np.isfinite(jax.grad(lambda w: jnp.sum(gradient(w) ** 2))(update)))


def test_gradient_is_still_exact_close_to_orthonormal():
    update = jnp.eye(16) + random_update((16, 16), 1e-4)
    _, expected = oracle(update, "released")
    gradient = jax.grad(orthogonality_penalty)(update)
    assert np.linalg.norm(gradient - expected) / np.linalg.norm(expected) < 1e-2


def test_released_form_does_not_change_under_transposition():
    update = random_update((9, 4), 0.5)
    assert np.isclose(orthogonality_penalty(update), orthogonality_penalty(update.T), rtol=1e-6)
    paper = [orthogonality_penalty(w, form="paper") for w in (update, update.T)]
    assert np.isclose(paper[1] - paper[0], 9 - 4, rtol=1e-5)


def test_small_updates_first_grow_evenly():
    """At the sizes of fine-tuning the gradient is -(2 / sqrt(n)) dW, to within one per cent."""
    update = random_update((64, 16), 1e-3)
    gradient = jax.grad(orthogonality_penalty)(update)
    assert np.linalg.norm(gradient + 2 / 4 * update) < 0.01 * np.linalg.norm(gradient)


def test_stacked_fused_and_convolution_leaves_are_read_as_told():
    tree = {
        "stacked": random_update((3, 6, 4), 0.5),
        "heads": random_update((6, 2, 5), 0.5),
        "conv": random_update((2, 2, 3, 7), 0.5),
        "bias": jnp.ones(4),
        "table": random_update((9, 4), 0.5),
    }
    rules = {
        "stacked": Matrix(),
        "heads": Matrix(rows=(0,), columns=(1, 2)),
        "conv": Matrix(rows=(0, 1, 2), columns=(3,)),
        "table": Skip("an embedding"),
    }
    expected = (
        sum(oracle(w, "released")[0] for w in tree["stacked"])
        + oracle(tree["heads"].reshape(6, 10), "released")[0]
        + oracle(tree["conv"].reshape(12, 7), "released")[0]
    )
    value, gradient = jax.value_and_grad(lambda tree: orthogonality_penalty(tree, matrices=rules))(
        tree
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(
        gradient["heads"].reshape(6, 10),
        oracle(tree["heads"].reshape(6, 10), "released")[1],
        rtol=1e-4,
        atol=1e-6,
    )
    assert not np.any(gradient["bias"]) and not np.any(gradient["table"])


def test_fused_query_key_value_is_one_gram():
    """One (d, 3d) matrix is not three (d, d) ones: splitting gives another number."""
    fused = random_update((4, 12), 0.5)
    parts = {name: fused[:, 4 * i : 4 * i + 4] for i, name in enumerate("qkv")}
    gram = sum(
        np.asarray(part, np.float64) @ np.asarray(part, np.float64).T for part in parts.values()
    )
    expected = np.linalg.norm(gram - np.eye(4))
    np.testing.assert_allclose(orthogonality_penalty(fused), expected, rtol=1e-5)
    assert abs(orthogonality_penalty(parts) - expected) > 0.1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_updates_accumulate_in_float32(dtype):
    update = random_update((64, 16), 0.5, dtype)
    value, gradient = jax.value_and_grad(orthogonality_penalty)(update)
    assert value.dtype == jnp.float32 and gradient.dtype == dtype
    np.testing.assert_allclose(value, oracle(update.astype(jnp.float32), "released")[0], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 10_000),
    st.floats(-18, 8),
    st.sampled_from(["released", "paper"]),
)
def test_never_nan(shape, seed, exponent, form):
    update = random_update(shape, 10.0**exponent, seed=seed)
    value, gradient = jax.value_and_grad(lambda w: orthogonality_penalty(w, form=form))(update)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_all_leaves_that_need_a_rule_are_in_one_error():
    tree = {f"conv{i}": {"kernel": jnp.ones((3, 3, 2, 2))} for i in range(15)}
    tree |= {
        "embedder": {"weight": jnp.ones((9, 4))},
        "q": {"lora_A": {"weight": jnp.ones((2, 4))}},
    }
    with pytest.raises(ValueError) as error:
        orthogonality_penalty(tree)
    lines = str(error.value).splitlines()
    assert sum("has no rule: its axes can be read in several ways" in line for line in lines) == 12
    assert "and 5 more leaves" in lines[-2] and "layer_rules(library, tree)" in lines[-1]
    del tree["conv0"]
    rules = {"conv*": Skip("convolutions")}
    with pytest.raises(ValueError, match="(?s)'embedder/weight'.*'q/lora_A/weight'.*Adapter"):
        orthogonality_penalty(tree, matrices=rules)


def test_what_is_no_matrix_is_left_out_unasked():
    left_out = {
        "ids": jnp.ones((4, 4), jnp.int32),
        "mask": jnp.ones((4, 4), bool),
        "attention": {"bias": jnp.ones((2, 4)), "scale": jnp.ones((3, 2, 4))},
        "token_embed": {"embedding": jnp.ones((9, 4))},
        "ln_1": {"weight": jnp.ones((3, 4))},
        "LayerNorm_0": {"weight": jnp.ones((3, 4))},
    }
    tree = {**left_out, "dense": {"weight": random_update((4, 4), 0.5)}}
    expected = orthogonality_penalty(tree["dense"])
    assert orthogonality_penalty(tree) == expected
    asked = orthogonality_penalty(tree, matrices={"token_embed/*": Matrix()})
    np.testing.assert_allclose(asked, expected + oracle(np.ones((9, 4)), "released")[0], rtol=1e-6)
    # The optax form: whole numbers have no gradient, and none is taken.
    optimizer = add_orthogonality_penalty(1.0)
    updates, _ = optimizer.update(tree, optimizer.init(tree), tree)
    assert updates["ids"] is tree["ids"]


BAD = [float("nan"), float("inf"), -float("inf"), 1e20]


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("everywhere", [True, False])
def test_what_is_not_finite_stays_so(form, bad, everywhere):
    update = random_update((7, 3), 0.3)
    update = jnp.full_like(update, bad) if everywhere else update.at[2, 1].set(bad)
    value, gradient = jax.value_and_grad(lambda w: orthogonality_penalty(w, form=form))(update)
    assert not np.isfinite(value)
    assert (
        not np.any(np.isfinite(gradient)) if form == "released" else np.any(~np.isfinite(gradient))
    )
    stacked = jnp.stack([update, random_update((7, 3), 0.3)])
    assert not np.isfinite(orthogonality_penalty(stacked, matrices={"": Matrix()}, form=form))
    factored = LowRank(update[:, :2], jnp.ones((2, 5)))
    if everywhere:
        assert not np.isfinite(orthogonality_penalty(factored, form=form))


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4)])
@pytest.mark.parametrize("size", [1e6, 1e10, 1e15, 1e18])
def test_huge_updates_have_the_right_gradient(shape, size):
    update = random_update(shape, size)
    value, gradient = jax.value_and_grad(orthogonality_penalty)(update)
    expected, slope = oracle(update, "released")
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6 * size)


def test_states_of_nnx():
    """Variables of flax.nnx: their paths end in "value"."""
    model = nnx.MultiHeadAttention(2, 16, decode=False, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    with pytest.raises(ValueError, match="'key/kernel/value' of shape .* has no rule"):
        orthogonality_penalty(state)
    # Patterns match with "/value" and without.
    rules = {"out/kernel/value": Matrix((0, 1), (2,)), "*/kernel": Matrix((0,), (1, 2))}
    kernels = [
        getattr(model, name).kernel[...].reshape(16, 16) for name in ("query", "key", "value")
    ]
    expected = sum(
        oracle(w, "released")[0] for w in [*kernels, model.out.kernel[...].reshape(16, 16)]
    )
    value = orthogonality_penalty(state, matrices=rules)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    optimizer = add_orthogonality_penalty(1.0, matrices=rules)
    updates, _ = optimizer.update(
        state, optimizer.init(state), jax.tree.map(lambda x: 2 * x, state)
    )
    assert jax.tree.structure(updates) == jax.tree.structure(state)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="'squared'.*'released', 'paper'"):
        orthogonality_penalty({"w": jnp.ones((2, 2))}, form="squared")
    with pytest.raises(ValueError, match="(?s)'q/kernel' of shape \\(4, 2, 2\\).*Matrix\\("):
        orthogonality_penalty({"q": {"kernel": jnp.ones((4, 2, 2))}})
    with pytest.raises(ValueError, match="no weight matrix"):
        orthogonality_penalty({"bias": jnp.ones(3)})
    with pytest.raises(ValueError, match="no leaf matches 'typo\\*'.*globs over whole paths"):
        orthogonality_penalty({"w": jnp.ones((2, 2))}, matrices={"typo*": Matrix()})
    with pytest.raises(ValueError, match="'ids' is int32, not floating point"):
        orthogonality_penalty({"ids": jnp.ones((2, 2), jnp.int32)}, matrices={"ids": Matrix()})
    with pytest.raises(ValueError, match="1 leaves are complex \\(first: 'w'"):
        orthogonality_penalty({"w": jnp.ones((2, 2), jnp.complex64)})
    with pytest.raises(ValueError, match="does not fit leaf 'w'"):
        orthogonality_penalty(
            {"w": jnp.ones((2, 2))}, matrices={"w": Matrix(rows=(0,), columns=(0,))}
        )


def test_under_strict_rank_promotion():
    update = {"w": random_update((4, 3), 0.5), "lora": LowRank(jnp.ones((8, 2)), jnp.ones((2, 6)))}
    expected = orthogonality_penalty(update)
    with jax.numpy_rank_promotion("raise"):
        assert orthogonality_penalty(update) == expected
        optimizer = add_orthogonality_penalty(1.0)
        optimizer.update(update, optimizer.init(update), update)
