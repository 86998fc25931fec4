"""The penalty against formulas written here in numpy float64, and at its edges."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from orthoreg_jax import (
    Adapter,
    LowRank,
    Matrix,
    Skip,
    add_orthogonality_penalty,
    describe_matrices,
    orthogonality_penalty,
)
from orthoreg_jax.arithmetic.rules import check_rules

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


# The optax form


def small_problem():
    """A two-layer network with stacked blocks, its rules and a batch."""
    rng = np.random.default_rng(0)
    params = {
        "first": {"kernel": random_update((6, 8), 0.4), "bias": jnp.zeros(8)},
        "blocks": {"kernel": random_update((2, 8, 8), 0.3, seed=1), "bias": jnp.zeros((2, 8))},
    }
    rules = {"blocks/kernel": Matrix(), "blocks/bias": Skip("biases, stacked")}
    x, y = rng.normal(size=(32, 6)), rng.normal(size=(32, 8))

    def loss(params):
        hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
        for kernel, bias in zip(params["blocks"]["kernel"], params["blocks"]["bias"], strict=True):
            hidden = jnp.tanh(hidden @ kernel + bias)
        return jnp.mean((hidden - y) ** 2)

    return params, rules, loss


def optimise(loss, optimizer, params, steps):
    @jax.jit
    @jax.numpy_dtype_promotion("standard")  # optax's AdamW promotes its own step count
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("form", ["released", "paper"])
def test_optax_form_equals_loss_form_over_a_training_run(form):
    params, rules, loss = small_problem()
    rest = (optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1))

    def penalised(new):
        delta = jax.tree.map(jnp.subtract, new, params)
        return loss(new) + 0.5 * orthogonality_penalty(delta, matrices=rules, form=form)

    in_loss, _ = optimise(penalised, optax.chain(*rest), params, 60)
    term = add_orthogonality_penalty(0.5, matrices=rules, form=form)
    in_chain, state = optimise(loss, optax.chain(term, *rest), params, 60)
    plain, _ = optimise(loss, optax.chain(*rest), params, 60)
    for a, b, c in zip(*map(jax.tree.leaves, (in_loss, in_chain, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        assert not np.allclose(a, c, atol=1e-3)
    assert state[0].count == 60 and state[0].penalty > 0


def test_strength_may_be_a_schedule_of_the_updates_made():
    params, _, _ = small_problem()
    params = {"w": params["first"]["kernel"]}
    moved = {"w": params["w"] + 0.1}
    optimizer = add_orthogonality_penalty(lambda count: jnp.where(count < 1, 0.0, 2.0))
    state, zero = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    first, state = optimizer.update(zero, state, moved)
    second, _ = optimizer.update(zero, state, moved)
    expected = jax.grad(orthogonality_penalty)({"w": moved["w"] - params["w"]})
    assert not np.any(first["w"])
    np.testing.assert_allclose(second["w"], 2 * expected["w"], rtol=1e-6)


def test_strength_may_be_traced():
    params = {"w": jnp.ones((4, 3))}
    zeros = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def first_update(strength):
        penalty = add_orthogonality_penalty(strength, anchor=zeros)
        return penalty.update(zeros, penalty.init(params), params)[0]["w"]

    ours, expected = first_update(0.5), jax.grad(orthogonality_penalty)(params)["w"]
    np.testing.assert_allclose(ours, 0.5 * expected, rtol=1e-5)


def test_explicit_anchor_and_donation():
    params, rules, loss = small_problem()
    anchor = jax.tree.map(lambda leaf: leaf + 0.05, params)
    term = add_orthogonality_penalty(1.0, anchor, matrices=rules)
    state = term.init(params)
    assert isinstance(state.anchor["first"]["bias"], optax.MaskedNode)  # no copy without need
    update = jax.jit(term.update, donate_argnums=(1, 2))
    updates, _ = update(jax.grad(loss)(params), term.init(params), jax.tree.map(jnp.copy, params))
    delta = jax.tree.map(jnp.subtract, params, anchor)
    expected = jax.tree.map(
        jnp.add,
        jax.grad(loss)(params),
        jax.grad(lambda tree: orthogonality_penalty(tree, matrices=rules))(delta),
    )
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strength", [-1, float("nan"), float("inf"), jnp.float32(-1)])
def test_strengths_that_are_none(strength):
    with pytest.raises(ValueError, match="a penalty needs a finite number, 0 or more"):
        add_orthogonality_penalty(strength)


@pytest.mark.parametrize(
    "strength, came",
    [(None, "None"), ("0.1", "'0.1'"), (np.ones(3), "ndarray of shape"), ([0.1], "list of shape")],
)
def test_strengths_that_are_no_number(strength, came):
    with pytest.raises(ValueError, match=f"strength is {came}.*give lambda as one finite number"):
        inspect.unwrap(add_orthogonality_penalty)(strength)  # ahead of the tests' own check


def masked_problem():
    params = {
        "tower": {"kernel": random_update((6, 4), 0.4), "conv": random_update((2, 2, 3, 4), 0.3)},
        "head": {"kernel": random_update((4, 3), 0.5, seed=2)},
    }
    rules = {"tower/conv": Matrix((0, 1, 2), (3,)), "head/*": Skip("a head"), "*/kernel": Matrix()}
    return params, jax.tree.map(lambda leaf: leaf * 0.9, params), rules


@pytest.mark.parametrize(
    "mask",
    [
        {"tower": {"kernel": True, "conv": True}, "head": {"kernel": False}},
        {"tower": True, "head": False},  # a whole part at once
    ],
)
def test_masks_pass_over_anchor_and_rules_of_the_whole_model(mask):
    params, anchor, rules = masked_problem()
    expected = jax.grad(
        lambda tree: orthogonality_penalty(jax.tree.map(jnp.subtract, tree, anchor), matrices=rules)
    )(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    term = add_orthogonality_penalty(1.0, anchor, matrices=rules)
    labels = jax.tree.map(lambda keep: "penalised" if keep else "plain", mask)
    either = (
        optax.masked(term, mask),
        optax.multi_transform({"penalised": term, "plain": optax.identity()}, labels),
    )
    for optimizer in either:
        updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
        for ours, theirs in zip(*map(jax.tree.leaves, (updates, expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_rules_beyond_a_mask_are_still_checked():
    params, anchor, rules = masked_problem()
    mask = {"tower": True, "head": False}
    for typo, wrong in (("tower/cnov", True), ("head/kernle", False), ("*/kernle", False)):
        # What is masked out cannot be told from what was never there.
        term = add_orthogonality_penalty(1.0, anchor, matrices={**rules, typo: Matrix()})
        optimizer = optax.masked(term, mask)
        if wrong:
            with pytest.raises(ValueError, match=f"no leaf matches '{typo}'"):
                optimizer.init(params)
        else:
            optimizer.init(params)


def test_the_anchor_may_stay_outside_of_the_state():
    params, anchor, rules = masked_problem()
    gradients = jax.tree.map(jnp.ones_like, params)
    kept = add_orthogonality_penalty(0.5, anchor, matrices=rules)
    outside = add_orthogonality_penalty(0.5, matrices=rules, keep_anchor=False)
    expected, _ = kept.update(gradients, kept.init(params), params)
    for optimizer in (outside, optax.chain(outside, optax.identity())):
        state = optimizer.init(params)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2
        update = jax.jit(lambda state, anchor, each=optimizer: each.update(
            gradients, state, params, anchor=anchor
        ))  # fmt: skip
        found, state = update(state, anchor)
        for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    with pytest.raises(ValueError, match="call optimizer.update\\(.*anchor=pretrained"):
        outside.update(gradients, outside.init(params), params)
    with pytest.raises(ValueError, match="the state already has the anchor"):
        kept.update(gradients, kept.init(params), params, anchor=anchor)
    with pytest.raises(ValueError, match="pass the anchor to each `update`"):
        add_orthogonality_penalty(0.5, anchor, keep_anchor=False)
    with pytest.raises(ValueError, match="params and anchor differ in shape: tower/kernel"):
        wrong = {**anchor, "tower": {**anchor["tower"], "kernel": jnp.ones((6, 5))}}
        outside.update(gradients, outside.init(params), params, anchor=wrong)


def test_initialising_again_after_donation():
    params = {"w": jnp.ones((3, 2))}
    optimizer = add_orthogonality_penalty(1.0)
    later = add_orthogonality_penalty(1.0, anchor=params)
    jax.jit(lambda tree: jax.tree.map(jnp.add, tree, tree), donate_argnums=0)(params)
    with pytest.raises(ValueError, match="params: the memory of 1 leaves was donated .*'w'"):
        optimizer.init(params)
    with pytest.raises(ValueError, match="anchor: the memory of 1 leaves was donated"):
        later.init({"w": jnp.ones((3, 2))})


def test_optax_form_refuses_bad_input():
    params = {"w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match="strength -1.0"):
        add_orthogonality_penalty(-1.0)
    with pytest.raises(ValueError, match="call\\s+optimizer.update"):
        optimizer = add_orthogonality_penalty(1.0)
        optimizer.update(params, optimizer.init(params))
    with pytest.raises(ValueError, match="params and anchor differ in shape: w"):
        add_orthogonality_penalty(1.0, {"w": jnp.ones((2, 2))}).init(params)
    with pytest.raises(ValueError, match="only in anchor: v"):
        add_orthogonality_penalty(1.0, {"v": params["w"]}).init(params)


def test_updates_keep_their_type_under_a_schedule():
    params = {"w": jnp.eye(4, 2, dtype=jnp.bfloat16)}
    for strength in (0.5, optax.linear_schedule(1.0, 0.5, 10)):
        optimizer = add_orthogonality_penalty(strength)
        updates, _ = optimizer.update(params, optimizer.init(params), {"w": params["w"] * 2})
        assert updates["w"].dtype == jnp.bfloat16


def test_what_the_parameters_lack_is_said_by_name():
    params = {"a": {"kernel": jnp.ones((4, 8))}, "b": jnp.ones(8)}
    optimizer = add_orthogonality_penalty(1.0)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="params and updates differ in structure; .* a/kernel"):
        optimizer.update({"c": {"kernel": jnp.ones((4, 8))}, "b": jnp.ones(8)}, state, params)
    other = {"a": {"kernel": jnp.ones((8, 4))}, "b": jnp.ones(8)}
    with pytest.raises(ValueError, match=r"'a/kernel' had the shape \(4, 8\) when .* \(8, 4\)"):
        optimizer.update(other, state, other)
    other = {"c": {"kernel": jnp.ones((4, 8))}, "b": jnp.ones(8)}
    with pytest.raises(ValueError, match="'a/kernel' .* params have no such leaf"):
        optimizer.update(other, state, other)


def test_two_leaves_of_one_path_are_refused():
    tree = {"a/b": random_update((4, 3), 0.5), "a": {"b": random_update((4, 3), 0.5)}}
    with pytest.raises(ValueError, match="two leaves have the path 'a/b'"):
        orthogonality_penalty(tree)


def test_under_strict_rank_promotion():
    update = {"w": random_update((4, 3), 0.5), "lora": LowRank(jnp.ones((8, 2)), jnp.ones((2, 6)))}
    expected = orthogonality_penalty(update)
    with jax.numpy_rank_promotion("raise"):
        assert orthogonality_penalty(update) == expected
        optimizer = add_orthogonality_penalty(1.0)
        optimizer.update(update, optimizer.init(update), update)


def test_rules_say_what_is_wrong_with_them():
    tree = {"q": {"lora_a": jnp.ones((4, 2)), "lora_b": jnp.ones((2, 3))}, "k": jnp.ones((4, 3))}
    with pytest.raises(
        ValueError, match=r"no node matches '\*' and has leaves 'lora_A' and 'lora_B'"
    ):
        orthogonality_penalty(tree, matrices={"*": Adapter("lora_A", "lora_B")})
    with pytest.raises(ValueError, match="matrices is a list; give a dict from patterns"):
        check_rules([Matrix()])
    with pytest.raises(ValueError, match="the tree has no weight matrix; it is empty"):
        orthogonality_penalty({})
    with pytest.raises(
        ValueError, match="no weight matrix, only these leaves:\nleaf  shape  read as"
    ):
        orthogonality_penalty({"b": jnp.ones(3)})
    rules = {"*/lora_?": Skip("other"), "k": Matrix(), "q/lora_a": Skip("never")}
    assert describe_matrices(tree, rules).endswith(
        "\nrule 'q/lora_a' never applies: the rules before it match its leaves first"
    )
    assert "(1 row, 1 column)" in describe_matrices({"temperature": jnp.ones((1, 1))})


@pytest.mark.parametrize("layer", ["tok_emb", "wte", "pos_emb", "embed_tokens", "wpe_1"])
def test_weights_named_like_embeddings_need_a_rule(layer):
    with pytest.raises(ValueError, match=f"'{layer}/weight' .*named like an embedding"):
        orthogonality_penalty({layer: {"weight": jnp.ones((9, 4))}})
    assert "-- a bias or scale" in describe_matrices({"attention": {"BIAS": jnp.ones((2, 4))}})
